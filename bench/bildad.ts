/** Bildad as its README shows it: `forRoot()`, or `concurrency` and nothing else. */
import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { IsInt, IsString } from 'class-validator';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  type BildadModuleOptions,
  type JobHandler,
} from 'nestjs-bildad';
import type { Adapter, Payload, Target } from './adapter.js';

/** Checked when a job is enqueued and again when it runs, as every context is. */
class NoopContext implements Payload {
  @IsInt() n!: number;
  @IsString() text!: string;
}

let onJob: (payload: Payload) => void = () => {};

@BildadJob({ code: 'NOOP', context: NoopContext })
class NoopJob implements JobHandler<NoopContext> {
  runJob(context: NoopContext): void {
    onJob(context);
  }
}

const CONFIGS: Record<string, BildadModuleOptions> = {
  default: {},
  'concurrency-100': { concurrency: 100 },
};

export const adapter: Adapter = {
  async prepare(target) {
    const app = await boot(target, { role: 'producer' });
    await app.close();
  },
  async produce(target) {
    // A process that enqueues and does not run jobs, as the peers' producers.
    const app = await boot(target, { role: 'producer' });
    const engine = app.get(JobEngineService);
    return {
      enqueueOne: (payload) => engine.enqueueJob(NoopJob, payload),
      enqueueBulk: (payloads) => engine.enqueueJobs(NoopJob, payloads),
      enqueueWithin: (payload) =>
        engine.transaction(async (manager) => {
          await manager.query('INSERT INTO bench_rows VALUES ($1, $2)', [payload.n, payload.text]);
          await engine.enqueueJob(NoopJob, payload);
        }),
      untilDone: async (payload) => {
        const entry = await engine.enqueueJob(NoopJob, payload);
        await engine.waitForJob(NoopJob, entry.jobRunIdentifier);
      },
    };
  },
  async work(target, listener) {
    onJob = listener;
    await boot(target, CONFIGS[target.config]!);
  },
  unfinished: `SELECT EXISTS (SELECT FROM bildad.job_queue_entries)
    OR EXISTS (SELECT FROM bildad.job_runs WHERE status = 'RUNNING')`,
};

function boot({ url }: Target, options: BildadModuleOptions) {
  class BenchModule {}
  return NestFactory.createApplicationContext(
    {
      module: BenchModule,
      providers: [NoopJob],
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url,
          autoLoadEntities: true,
        }),
        BildadModule.forRoot(options),
      ],
    },
    { logger: ['error', 'warn'], abortOnError: false },
  );
}
