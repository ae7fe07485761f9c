import 'reflect-metadata';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { context, metrics, propagation, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics';
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace-base';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  JobEvents,
  type JobExecution,
  type TelemetryOptions,
} from 'nestjs-bildad';
import { startPostgres } from 'nestjs-bildad/testing';
import { spread } from './statistics.js';

/**
 * What `telemetry` costs: `npm run bench:telemetry`. No-op jobs, drained by processes of their own with it and without, in
 * turns. `progress` has a listener of its own and a handler that tells it.
 */

const JOBS = 40_000;
const ROUNDS = 5;

interface Way {
  telemetry?: TelemetryOptions;
  /** Of the spans, which an exporter that does nothing takes; 0: an SDK is registered, and no trace is sampled. */
  sampled?: number;
  progress?: boolean;
}

const WAYS: Record<string, Way> = {
  none: {},
  metrics: { telemetry: { traces: false } },
  'traces, none sampled': { telemetry: { metrics: false }, sampled: 0 },
  'traces, a tenth': { telemetry: { metrics: false }, sampled: 0.1 },
  'traces, all': { telemetry: { metrics: false }, sampled: 1 },
  'metrics, a tenth of the traces, progress': {
    telemetry: {},
    sampled: 0.1,
    progress: true,
  },
};

interface Drained {
  jobsPerSecond: number;
  cpuUsPerJob: number;
}

@BildadJob({ code: 'NOOP' })
class NoopJob {
  async runJob(): Promise<void> {}
}

@BildadJob({ code: 'TELLING' })
class TellingJob {
  async runJob(_context: object, job: JobExecution): Promise<void> {
    job.progress(0.5);
  }
}

class PullReader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}
}

const [url, name] = process.argv.slice(2);
if (url) process.send!(await drain(url, WAYS[name!]!));
else await compare();

function registerSdk(sampled: number): void {
  trace.setGlobalTracerProvider(
    new BasicTracerProvider({
      sampler: new ParentBasedSampler({
        root: new TraceIdRatioBasedSampler(sampled),
      }),
      spanProcessors: [
        new BatchSpanProcessor({
          export: (_spans, done) => done({ code: 0 }),
          shutdown: async () => {},
        }),
      ],
    }),
  );
  context.setGlobalContextManager(
    new AsyncLocalStorageContextManager().enable(),
  );
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
}

async function drain(
  databaseUrl: string,
  { telemetry, sampled, progress }: Way,
): Promise<Drained> {
  if (sampled !== undefined) registerSdk(sampled);
  if (telemetry && telemetry.metrics !== false)
    metrics.setGlobalMeterProvider(
      new MeterProvider({ readers: [new PullReader()] }),
    );
  @Module({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: databaseUrl,
        autoLoadEntities: true,
      }),
      BildadModule.forRoot({
        concurrency: 100,
        ...(telemetry && { telemetry }),
      }),
    ],
    providers: [NoopJob, TellingJob],
  })
  class App {}
  const app = await NestFactory.createApplicationContext(App, {
    logger: ['error'],
  });
  let left = JOBS;
  const events = app.get(JobEvents);
  const over = new Promise<void>((resolve) => {
    events.on('run.finished', () => {
      if (--left === 0) resolve();
    });
  });
  let told = 0;
  if (progress) events.on('run.progress', () => told++);
  const contexts = Array.from({ length: JOBS }, () => ({}));
  const job = progress ? TellingJob : NoopJob;
  await app.get(JobEngineService).enqueueJobs(job, contexts);
  const cpu = process.cpuUsage();
  const began = performance.now();
  await over;
  const { user, system } = process.cpuUsage(cpu);
  const jobsPerSecond = (JOBS / (performance.now() - began)) * 1_000;
  await app.close();
  await (trace.getTracerProvider() as { shutdown?(): Promise<void> })
    .shutdown?.()
    .catch(() => undefined);
  return { jobsPerSecond, cpuUsPerJob: (user + system) / JOBS };
}

async function compare(): Promise<void> {
  const server = await startPostgres({
    settings: { synchronous_commit: 'off' },
  });
  const found = new Map<string, Drained[]>();
  const ways = Object.keys(WAYS);
  for (let round = 0; round < ROUNDS; round++)
    for (const way of round % 2 ? ways.toReversed() : ways) {
      const child = fork(fileURLToPath(import.meta.url), [server.url, way]);
      const [drained] = (await once(child, 'message')) as [Drained];
      found.set(way, [...(found.get(way) ?? []), drained]);
      console.error(way, drained);
      if (child.exitCode === null) await once(child, 'exit');
    }
  await server.stop();
  const told = (values: number[]) => {
    const { min, median, max } = spread(values)!;
    return [median, min, max].map((value) => Number(value.toFixed(1)));
  };
  for (const [way, drained] of found)
    console.log(
      way,
      'jobs/s',
      told(drained.map(({ jobsPerSecond }) => jobsPerSecond)),
      'us of CPU a job',
      told(drained.map(({ cpuUsPerJob }) => cpuUsPerJob)),
    );
}
