import { SetMetadata } from '@nestjs/common';
import type { Backoff } from '../../job/backoff.js';
import type { Upcast, ContextClass } from '../../context/context-contract.js';
import type { Duration } from '../../job/duration.js';
import type { Isolation } from '../../job/job-handler.js';
import type { JsonSchema } from '../../job/json.js';
import type { TransactionalOptions } from '../../options/job-options.js';

/** Options of `@BildadJob`. A wrong option keeps the app from starting. */
export interface BildadJobOptions {
  /** The template's unique code, 1 to 200 characters. */
  code: string;
  /** A name for people. Default: the code. */
  name?: string;
  /** Position in lists for people, from -1,000,000 to 1,000,000. Default 0. */
  displayOrder?: number;
  /** The context's type: a class with class-validator decorators, or a JSON Schema. Default: any JSON. */
  context?: ContextClass | JsonSchema;
  /**
   * Version of the context's form, an integer from 1. Increase it when the form changes. It is stored with each entry. A
   * process that does not know a job's version returns the job to the queue. Default: none, which is older than 1.
   */
  version?: number;
  /** Turns an older context into one of `version`, before it is validated. May be async. Required from version 2 on. */
  upcast?: Upcast;
  /** Encrypt contexts and results with the keys of the module option `encryption`. Default `false`. */
  encrypt?: boolean;
  /** How long a run may take, from 1 ms. Default 60 minutes. */
  timeout?: Duration;
  /** Retries after the first run, from 0. Default 3: up to 4 runs. */
  maxRetries?: number;
  /** Jobs with a lower number run first, from -1,000,000 to 1,000,000. Default 5. */
  priority?: number;
  /** The delay before a retry. Default: the module's. */
  backoff?: Backoff;
  /**
   * Where the handler runs. `'inline'`: in the app's process; its signal can be aborted, but it cannot be killed.
   * `'thread'` and `'process'`: in a worker thread or a separate process with the app's module and providers, which is
   * killed if the handler does not stop; they need the module option `isolation`. Default `'inline'`.
   */
  isolation?: Isolation;
  /**
   * Run the handler in a transaction, `job.manager`. Its writes, the jobs that it enqueues, the run's end and
   * the removal of the entry are committed together when it returns. A run holds a connection of the app's DataSource.
   * Default `false`; `true`: READ COMMITTED. See docs/transactions.md.
   */
  transactional?: boolean | TransactionalOptions;
  /** Name of the engine (`BildadModule.forRoot({ name })`) that runs it. Default: every engine of the process. */
  engine?: string;
}

export const BILDAD_JOB = Symbol('nestjs-bildad:job');

/** Makes a provider the handler of a job template. Its class must have a method `runJob(context, job)`. */
export function BildadJob(options: BildadJobOptions): ClassDecorator {
  // Does not apply @Injectable() too: it would reset the scope of an @Injectable() below.
  return SetMetadata(BILDAD_JOB, options);
}

/** The options of the class itself. Subclasses do not inherit them. */
export function jobOptionsOf(target: unknown): BildadJobOptions | undefined {
  return typeof target === 'function'
    ? (Reflect.getOwnMetadata(BILDAD_JOB, target) as BildadJobOptions | undefined)
    : undefined;
}
