/**
 * How fast this machine does it, on an embedded PostgreSQL that keeps what it says (fsync and
 * synchronous_commit on): `npm run bench -- [jobs] [concurrency]`. The last line is one JSON object.
 * Figures move by a factor of two between runs of a shared machine: compare within one.
 */
import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  JobEvents,
  type BildadModuleOptions,
} from 'nestjs-bildad';
import { startPostgres } from 'nestjs-bildad/testing';

const IN_FLIGHT = 32;
const jobs = Number(process.argv[2] ?? 20_000);
const concurrency = process.argv[3] ? Number(process.argv[3]) : undefined;

@BildadJob({ code: 'NOOP' })
class NoopJob {
  runJob(): void {}
}

/** About 100 bytes of JSON. */
const context = (n: number) => ({ n, text: 'x'.repeat(80) });

const server = await startPostgres({
  durable: true,
  settings: { shared_buffers: '512MB', max_wal_size: '4GB' },
});
try {
  const one = Math.floor(jobs / 4);
  const figures = {
    jobs,
    concurrency: concurrency ?? 'default',
    ...(await enqueue(one, jobs - one)),
    drainPerSecond: await drain(),
  };
  console.log(JSON.stringify(figures));
} finally {
  await server.stop();
}

async function enqueue(one: number, bulk: number) {
  const app = await boot({ role: 'producer' });
  const engine = app.get(JobEngineService);
  await engine.enqueueJob(NoopJob, context(0), { delay: '1h' });
  let sent = 0;
  const oneByOne = async () => {
    while (sent++ < one) await engine.enqueueJob(NoopJob, context(sent));
  };
  const enqueuePerSecond = await rate(one, () =>
    Promise.all(Array.from({ length: IN_FLIGHT }, oneByOne)),
  );
  const contexts = Array.from({ length: bulk }, (_none, n) => context(n));
  const bulkPerSecond = await rate(bulk, () =>
    engine.enqueueJobs(NoopJob, contexts),
  );
  await app.close();
  return { enqueuePerSecond, bulkPerSecond };
}

/** From the first end to the last: what a node does once it has started. */
async function drain(): Promise<number> {
  const app = await boot(concurrency === undefined ? {} : { concurrency });
  let begin = 0;
  let ended = 0;
  await new Promise<void>((resolve) => {
    app.get(JobEvents).on('run.finished', () => {
      if (ended++ === 0) begin = performance.now();
      if (ended === jobs) resolve();
    });
  });
  const perSecond = Math.round((jobs / (performance.now() - begin)) * 1000);
  await app.close();
  return perSecond;
}

async function rate(n: number, work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return Math.round((n / (performance.now() - begin)) * 1000);
}

function boot(options: BildadModuleOptions) {
  class BenchModule {}
  return NestFactory.createApplicationContext(
    {
      module: BenchModule,
      providers: [NoopJob],
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url: server.url,
          autoLoadEntities: true,
        }),
        BildadModule.forRoot(options),
      ],
    },
    { logger: ['error'] },
  );
}
