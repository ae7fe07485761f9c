import { AsyncLocalStorage } from 'node:async_hooks';
import type { Type } from '@nestjs/common';
import type { BildadModuleOptions, JobHandler } from 'nestjs-bildad';
import { carryCls } from 'nestjs-bildad/cls';
import { ClsServiceManager } from 'nestjs-cls';
import {
  GuardedJob,
  Listening,
  LoggingJob,
  PlainJob,
  ProgressingJob,
  RequestJob,
  SurroundedJob,
  TellingJob,
  WorkingAndTellingJob,
  WorkingJob,
} from './jobs.js';

/** What of the package a process uses beside the engine. */
export interface Way {
  job: Type<JobHandler>;
  options?: BildadModuleOptions;
  providers?: Type[];
  /** Of the spans, which an exporter takes that does nothing with them; left out: no SDK is registered. */
  sampled?: number;
  /** What the jobs are enqueued in. */
  inside?: <T>(enqueue: () => T) => T;
  /** The way that it is held beside. Default `nothing`. */
  beside?: string;
}

const als = new AsyncLocalStorage<string>();
const cls = ClsServiceManager.getClsService();
const everything = {
  options: { telemetry: true },
  sampled: 0.1,
  providers: [Listening],
} satisfies Partial<Way>;

export const WAYS: Record<string, Way> = {
  nothing: { job: PlainJob },
  'attributeRejections: false': {
    job: PlainJob,
    options: { attributeRejections: false },
  },
  'a listener': { job: PlainJob, providers: [Listening] },
  'a line': { job: LoggingJob },
  'progress, twice': { job: ProgressingJob },
  'a guard': { job: GuardedJob },
  'a guard and an interceptor': { job: SurroundedJob },
  'scope REQUEST': { job: RequestJob },
  'a carrier': {
    job: PlainJob,
    options: {
      carry: {
        tenant: {
          capture: () => als.getStore(),
          restore: (tenant: string | undefined, next) =>
            tenant === undefined ? als.exit(next) : als.run(tenant, next),
        },
      },
    },
    inside: (enqueue) => als.run('acme', enqueue),
  },
  'carryCls, two keys': {
    job: PlainJob,
    options: { carry: { cls: carryCls({ keys: ['tenantId', 'userId'] }) } },
    inside: (enqueue) =>
      cls.run(() => {
        cls.set('tenantId', 'acme');
        cls.set('userId', 4711);
        return enqueue();
      }),
  },
  metrics: { job: PlainJob, options: { telemetry: { traces: false } } },
  'traces, a tenth sampled': {
    job: PlainJob,
    options: { telemetry: { metrics: false } },
    sampled: 0.1,
  },
  'traces, all sampled': {
    job: PlainJob,
    options: { telemetry: { metrics: false } },
    sampled: 1,
  },
  everything: { job: TellingJob, ...everything },
  'two statements a job': { job: WorkingJob },
  'two statements a job, telemetry': {
    job: WorkingJob,
    options: { telemetry: true },
    sampled: 0.1,
    beside: 'two statements a job',
  },
  'two statements a job, a line, progress, a listener': {
    job: WorkingAndTellingJob,
    providers: [Listening],
    beside: 'two statements a job',
  },
  'two statements a job, everything': {
    job: WorkingAndTellingJob,
    ...everything,
    beside: 'two statements a job',
  },
};
