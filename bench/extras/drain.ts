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
import { BildadModule, JobEngineService, JobEvents } from 'nestjs-bildad';
import type { Way } from './ways.js';

export interface Drained {
  jobsPerSecond: number;
  /** Of this process, enqueueing left out. */
  cpuUsPerJob: number;
}

/** Enqueues so many jobs in one transaction, and runs them. */
export async function drain(
  url: string,
  jobs: number,
  { job, options, providers = [], sampled, inside = (enqueue) => enqueue() }: Way,
): Promise<Drained> {
  registerSdk(sampled);
  @Module({
    imports: [
      TypeOrmModule.forRoot({ type: 'postgres', url, autoLoadEntities: true }),
      BildadModule.forRoot({ concurrency: 100, ...options }),
    ],
    providers: [job, ...providers],
  })
  class App {}
  // Lines are not printed: that would be most of it.
  const app = await NestFactory.createApplicationContext(App, {
    logger: ['error'],
  });
  let left = jobs;
  const over = new Promise<void>((resolve) => {
    app.get(JobEvents).on('run.finished', () => {
      if (--left === 0) resolve();
    });
  });
  const contexts = Array.from({ length: jobs }, (_, n) => ({ n }));
  await inside(() => app.get(JobEngineService).enqueueJobs(job, contexts));
  const cpu = process.cpuUsage();
  const began = performance.now();
  await over;
  const { user, system } = process.cpuUsage(cpu);
  const jobsPerSecond = (jobs / (performance.now() - began)) * 1_000;
  await app.close();
  return { jobsPerSecond, cpuUsPerJob: (user + system) / jobs };
}

class PullReader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}
  protected async onShutdown(): Promise<void> {}
}

function registerSdk(sampled: number | undefined): void {
  metrics.setGlobalMeterProvider(new MeterProvider({ readers: [new PullReader()] }));
  if (sampled === undefined) return;
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
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
}
