import { Module, type DynamicModule } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule } from 'nestjs-bildad';
import { FiguresService } from './figures.js';
import { FileIndex } from './files/file-index.entity.js';
import { JobsController } from './http/jobs.controller.js';
import { FlakyJob } from './jobs/flaky.job.js';
import { IndexFileJob } from './jobs/index-file.job.js';
import { ReportJob } from './jobs/report.job.js';
import { RunawayJob } from './jobs/runaway.job.js';
import { MainJob } from './main-job.js';
import { Outstanding } from './outstanding.js';

/** The environment variable that passes the URL of the database to the hosts of isolated jobs. */
export const HOST_DATABASE_URL = 'SAMPLE_HOST_DATABASE_URL';

@Module({
  imports: [TypeOrmModule.forFeature([FileIndex])],
  controllers: [JobsController],
  providers: [
    // Handlers are ordinary providers.
    IndexFileJob,
    ReportJob,
    FlakyJob,
    RunawayJob,
    MainJob,
    Outstanding,
    FiguresService,
  ],
})
export class AppModule {
  /** @param synchronize the sample's own table is made */
  static on(databaseUrl: string, { synchronize = true } = {}): DynamicModule {
    return {
      module: AppModule,
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url: databaseUrl,
          autoLoadEntities: true,
          // For the sample's own table only: Bildad's entities are left alone by it, and a real app
          // has migrations.
          synchronize,
          retryAttempts: 2,
          retryDelay: 500,
        }),
        BildadModule.forRoot({
          concurrency: 10,
          // So that the flaky job's retries, 200 ms apart, are not late.
          tickInterval: '200ms',
          // For the runaway job, which must be killed.
          isolation: {
            module: new URL('./host.module.js', import.meta.url),
            export: 'HostModule',
          },
          shutdown: { drainTimeout: '2s', killGracePeriod: '500ms' },
        }),
      ],
    };
  }
}
