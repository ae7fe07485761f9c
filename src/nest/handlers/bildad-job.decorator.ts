import { SetMetadata } from '@nestjs/common';
import type { Backoff } from '../../job/backoff.js';
import type { Upcast, ContextClass } from '../../context/context-contract.js';
import type { Duration } from '../../job/duration.js';
import type { Isolation } from '../../job/job-handler.js';
import type { JsonSchema } from '../../job/json.js';
import type { TransactionalOptions } from '../../options/job-options.js';

export interface BildadJobOptions {
  /** Names the template; unique. */
  code: string;
  /** For people. Default: the code. */
  name?: string;
  displayOrder?: number;
  /** What the context must be: a class with class-validator decorators, or a JSON Schema. Default: any JSON. */
  context?: ContextClass | JsonSchema;
  /**
   * A whole number from 1, to be raised when contexts change their form. It is stored with each entry; one from a newer
   * deploy than this goes back to the queue. Default: none, which is before 1.
   */
  version?: number;
  /** Makes a context of an older deploy into one of `version`, before it is validated. May be async. Demanded from version 2 on. */
  upcast?: Upcast;
  /** Store contexts and results encrypted, with the keys of the module's option `encryption`. Default false. */
  encrypt?: boolean;
  /** How long a run may take. Default 60 minutes. */
  timeout?: Duration;
  /** Retries after the first run: 3, the default, means at most 4 runs. */
  maxRetries?: number;
  /** Lower runs first. Default 5. */
  priority?: number;
  /** Default: the module's. */
  backoff?: Backoff;
  /**
   * Where it runs. `'inline'`, the default: in the app's process, where it can be told to stop and no more. `'thread'`
   * and `'process'`: in a worker thread or a process of its own, which has the app's module with its providers, and
   * which is ended where the handler does not stop. They need the module's option `isolation`.
   */
  isolation?: Isolation;
  /**
   * It runs in a transaction, `job.manager`, that its end is part of: what it writes there, the jobs it enqueues, its
   * run's end and its entry's removal are committed together when it returns, or not at all. It holds a connection of the
   * app's DataSource meanwhile. Default `false`; `true`: READ COMMITTED. See docs/transactions.md.
   */
  transactional?: boolean | TransactionalOptions;
  /** The engine (`BildadModule.forRoot({ name })`) that serves it. Default: every engine of the process. */
  engine?: string;
}

export const BILDAD_JOB = Symbol('nestjs-bildad:job');

/** Makes a provider the handler of a job template. Its class has `runJob(context, job)`. */
export function BildadJob(options: BildadJobOptions): ClassDecorator {
  // Not @Injectable() as well: it would reset the scope of one below it.
  return SetMetadata(BILDAD_JOB, options);
}

/** The options a class itself was decorated with; subclasses do not inherit them. */
export function jobOptionsOf(target: unknown): BildadJobOptions | undefined {
  return typeof target === 'function'
    ? (Reflect.getOwnMetadata(BILDAD_JOB, target) as BildadJobOptions | undefined)
    : undefined;
}
