import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadJob, BildadModule, type Isolation } from 'nestjs-bildad';

/** What is measured, and what its hosts boot. */
export const DATABASE_URL = 'BENCH_ISOLATION_DATABASE_URL';
export const CONCURRENCY = 'BENCH_ISOLATION_CONCURRENCY';

const handlers = (isolation: Isolation) => {
  @BildadJob({ code: `NOOP_${isolation}`, isolation })
  class Noop {
    runJob(): void {}
  }
  @BildadJob({ code: `SPIN_${isolation}`, isolation, maxRetries: 0 })
  class Spin {
    runJob(): void {
      for (;;);
    }
  }
  return isolation === 'inline' ? [Noop] : [Noop, Spin];
};

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: process.env[DATABASE_URL]!,
      autoLoadEntities: true,
    }),
    BildadModule.forRoot({
      concurrency: Number(process.env[CONCURRENCY]),
      isolation: {
        module: import.meta.url,
        export: 'IsolationBench',
        threads: 2,
        processes: 2,
      },
      shutdown: { killGracePeriod: 0 },
    }),
  ],
  providers: [...handlers('inline'), ...handlers('thread'), ...handlers('process')],
})
export class IsolationBench {}
