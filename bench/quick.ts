import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  JobEvents,
  JobsService,
} from 'nestjs-bildad';
import { startPostgres } from 'nestjs-bildad/testing';

@BildadJob({ code: 'NOOP' })
class NoopJob {
  runJob(): void {}
}

const N = Number(process.argv[2] ?? 20_000);
const concurrency = Number(process.argv[3] ?? 10);
const server = await startPostgres({
  durable: true,
  settings: { shared_buffers: '512MB', max_wal_size: '4GB' },
});
async function boot(options: object) {
  return NestFactory.createApplicationContext(
    {
      module: class {},
      providers: [NoopJob],
      imports: [
        TypeOrmModule.forRoot({
          type: 'postgres',
          url: server.url,
          autoLoadEntities: true,
          extra: { max: 20 },
        }),
        BildadModule.forRoot(options),
      ],
    } as never,
    { logger: ['error'] },
  );
}
const producer = await boot({ role: 'producer' });
const engine = producer.get(JobEngineService);
let t = performance.now();
let sent = 0;
await Promise.all(
  Array.from({ length: 32 }, async () => {
    while (sent++ < N / 4)
      await engine.enqueueJob(NoopJob, {
        hello: 'world',
        n: sent,
        text: 'x'.repeat(60),
      });
  }),
);
console.log(
  'enqueue one by one',
  Math.round((N / 4 / (performance.now() - t)) * 1000),
  '/s',
);
t = performance.now();
const count = N - Math.floor(N / 4);
await engine.enqueueJobs(
  NoopJob,
  Array.from({ length: count }, (_n, n) => ({
    hello: 'world',
    n,
    text: 'x'.repeat(60),
  })),
);
console.log('bulk', Math.round((count / (performance.now() - t)) * 1000), '/s');
await producer.close();
t = performance.now();
const worker = await boot({ concurrency });
let done = 0;
let first = 0;
await new Promise<void>((resolve) =>
  worker.get(JobEvents).on('run.finished', () => {
    if (!first) first = performance.now();
    if (++done >= N) resolve();
  }),
);
console.log(
  'drain',
  concurrency,
  Math.round((N / (performance.now() - first)) * 1000),
  '/s',
  'left',
  await worker.get(JobsService).getNumberOfJobsInTheQueue(),
);
await worker.close();
await server.stop();
