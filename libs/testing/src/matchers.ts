import {
  BildadConfigError,
  JobTemplateNotFoundError,
  jobCodeOf,
  refuseUnknown,
  type Job,
} from 'nestjs-bildad';
import type { BildadTesting } from './bildad-testing.js';
import { type EnqueuedJob, isEncrypted } from './enqueued.js';

const STATES: readonly unknown[] = ['AVAILABLE', 'RUNNING', 'QUARANTINED', 'DONE'];

/** The jobs that can be enqueued, and the engines. */
export interface Known {
  codes: Set<string>;
  engines: string[];
}

/** A registered symbol, because a test runner may load this file twice. */
const KNOWN = Symbol.for('nestjs-bildad:testing:known');

/** Marks a list for `expect` with the known jobs, so that a matcher can refuse an unknown job even for an empty list. */
export const withKnown = (jobs: EnqueuedJob[], known: Known): EnqueuedJob[] =>
  Object.defineProperty(jobs, KNOWN, { value: known });

/** The jobs passed to `expect`. @throws JobTemplateNotFoundError, BildadConfigError for an unknown job, for which `not` would always pass */
export async function receivedJobs(
  received: unknown,
  code: string,
  { status, engine }: EnqueuedLike,
): Promise<EnqueuedJob[]> {
  if (typeof status === 'string' && !STATES.includes(status))
    throw new BildadConfigError('status', `must be one of ${STATES.join(', ')}`, {
      got: status,
      where: 'toHaveEnqueued',
    });
  // Not by its class, because a test runner may load it twice.
  const { enqueued } = (received ?? {}) as Partial<BildadTesting>;
  const jobs = typeof enqueued === 'function' ? await enqueued.call(received) : received;
  const known = (jobs as { [KNOWN]?: Known } | null | undefined)?.[KNOWN];
  if (!known)
    throw new BildadConfigError(
      'expect(...)',
      'must get a BildadTesting, or the list that its enqueued() returns',
      { got: received },
    );
  if (!known.codes.has(code)) throw new JobTemplateNotFoundError(code);
  if (typeof engine === 'string' && !known.engines.includes(engine))
    throw new BildadConfigError('engine', `must be one of ${known.engines.join(', ')}`, {
      got: engine,
      where: 'toHaveEnqueued',
    });
  return jobs as EnqueuedJob[];
}

/** A context in its stored form: Dates as text, without undefined properties. Asymmetric matchers stay. */
export function asStored(expected: unknown, stored: unknown): unknown {
  const at = (name: string | number): unknown =>
    (stored as Record<string | number, unknown> | null | undefined)?.[name];
  // By their tags, because a test runner may have its own Date class.
  const tag = Object.prototype.toString.call(expected);
  if (tag === '[object Date]') return (expected as Date).toJSON();
  if (Array.isArray(expected)) return expected.map((one, index) => asStored(one, at(index)));
  if (tag !== '[object Object]') return expected;
  const given = expected as Record<string, unknown>;
  if (typeof given['asymmetricMatch'] === 'function') return expected;
  return Object.fromEntries(
    Object.entries(given)
      .filter(([name, value]) => value !== undefined || at(name) !== undefined)
      .map(([name, value]) => [name, asStored(value, at(name))]),
  );
}

/** Expected properties of an enqueued job, beside its context. Each may be an asymmetric matcher. */
export interface EnqueuedLike {
  priority?: number;
  runAt?: Date;
  jobRunIdentifier?: string;
  /** Name of the engine. */
  engine?: string;
  status?: EnqueuedJob['status'];
}

/** The used part of the context in which vitest and jest call matchers. */
interface MatcherState {
  equals(a: unknown, b: unknown, customTesters?: any[]): boolean;
  utils: {
    printReceived?(value: unknown): string;
    stringify?(value: unknown): string;
    iterableEquality?: unknown;
    subsetEquality?: unknown;
  };
}

interface Answer {
  pass: boolean;
  message: () => string;
}

const NAMES: readonly (keyof EnqueuedLike)[] = [
  'priority',
  'runAt',
  'jobRunIdentifier',
  'engine',
  'status',
];

/** For `expect.extend`, of vitest and of jest. */
export const bildadMatchers = {
  async toHaveEnqueued(
    this: MatcherState,
    received: unknown,
    job: Job,
    context?: unknown,
    like: EnqueuedLike = {},
  ): Promise<Answer> {
    const found = await find(this, received, job, context, like);
    return {
      pass: found.fitting.length > 0,
      message: () => describeMismatch(this, found, 'at least one'),
    };
  },

  async toHaveEnqueuedTimes(
    this: MatcherState,
    received: unknown,
    job: Job,
    times: number,
    context?: unknown,
    like: EnqueuedLike = {},
  ): Promise<Answer> {
    if (!Number.isSafeInteger(times) || times < 0)
      throw new BildadConfigError('times', 'must be an integer from 0', {
        got: times,
        where: 'toHaveEnqueuedTimes',
      });
    const found = await find(this, received, job, context, like);
    return {
      pass: found.fitting.length === times,
      message: () => describeMismatch(this, found, `exactly ${times}`),
    };
  },
};

/** The parameters of `toHaveEnqueued`, for its types. */
export type ToHaveEnqueued<R> = (job: Job, context?: unknown, like?: EnqueuedLike) => Promise<R>;
export type ToHaveEnqueuedTimes<R> = (
  job: Job,
  times: number,
  context?: unknown,
  like?: EnqueuedLike,
) => Promise<R>;

interface Found {
  code: string;
  context: unknown;
  like: EnqueuedLike;
  jobs: EnqueuedJob[];
  fitting: EnqueuedJob[];
}

async function find(
  state: MatcherState,
  received: unknown,
  job: Job,
  context: unknown,
  like: EnqueuedLike,
): Promise<Found> {
  const code = jobCodeOf(job);
  refuseUnknown(like, NAMES, '', 'toHaveEnqueued');
  const jobs = await receivedJobs(received, code, like);
  const fitting = jobs.filter((one) => one.code === code);
  if (context !== undefined && fitting.some(isEncrypted))
    throw new BildadConfigError(
      'context',
      `cannot be compared: the contexts of "${code}" are encrypted`,
    );
  const { iterableEquality, subsetEquality } = state.utils;
  const testers = [iterableEquality, subsetEquality].filter(Boolean);
  return {
    code,
    context,
    like,
    jobs,
    fitting: fitting.filter(
      (one) =>
        (context === undefined ||
          state.equals(one.context, asStored(context, one.context), testers)) &&
        NAMES.every((name) => like[name] === undefined || state.equals(one[name], like[name])),
    ),
  };
}

function describeMismatch(
  { utils }: MatcherState,
  { code, context, like, jobs, fitting }: Found,
  wanted: string,
): string {
  const print = (value: unknown) =>
    utils.stringify?.(value) ?? utils.printReceived?.(value) ?? String(value);
  const line = (job: EnqueuedJob) => {
    const mark = fitting.includes(job) ? '>' : ' ';
    const more = [
      job.status,
      ...(job.priority === undefined ? [] : [`priority ${job.priority}`]),
      `runAt ${job.runAt.toISOString()}`,
    ];
    return `${mark} ${job.code} ${print(job.context)} (${more.join(', ')})`;
  };
  const asked = [
    code,
    ...(context === undefined ? [] : [print(context)]),
    ...(Object.keys(like).length === 0 ? [] : [print(like)]),
  ];
  return [
    `asked for ${wanted} of: ${asked.join(' ')}`,
    `fitting: ${fitting.length}`,
    jobs.length === 0
      ? 'nothing was enqueued'
      : `enqueued (${jobs.length}):\n${jobs.map(line).join('\n')}`,
  ].join('\n');
}
