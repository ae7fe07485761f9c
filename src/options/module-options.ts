import type { EntityManager } from 'typeorm';
import type { Backoff } from '../job/backoff.js';
import type { Duration } from '../job/duration.js';
import type { HostKind } from '../job/job-handler.js';

/** Returns the `EntityManager` of the transaction that the caller is in, if any. */
export type CurrentManager = () => EntityManager | null | undefined;

/** `'producer'` only enqueues, `'worker'` and `'all'` enqueue and run jobs. */
export type BildadRole = 'all' | 'producer' | 'worker';

/** Options of `BildadModule.forRoot` and of a `forRootAsync` factory. Each has a default. */
export interface BildadModuleOptions {
  /** The engine's name: its `JobConfig` row, and the guard that it shares with other nodes. Default `'default'`. */
  name?: string;
  /** Default `'all'`. */
  role?: BildadRole;
  /** Start the engine with the app. `false`: call `JobEngineService.start()`. Default `true`. */
  autoStart?: boolean;
  /** How many jobs this node runs at once, from 1 to 100,000. Default 10. */
  concurrency?: number;
  /** How often the engine ticks, from 10 ms. `false`: only when `runJobEngine()` is called. Default `'1s'`. */
  tickInterval?: Duration | false;
  /**
   * Announce enqueued jobs to other processes at once, and listen for theirs, with PostgreSQL's NOTIFY and a dedicated
   * connection. `false`: they are found at the next tick. LISTEN does not work through PgBouncer in transaction mode.
   * Default `true`.
   */
  notify?: boolean;
  /** The most entries that one pass starts, from 1 to 100,000. Default: the free slots, up to the config's `batchSize`. */
  batchSize?: number;
  /** Create or upgrade the schema at start. Default `true`. */
  migrate?: boolean;
  /**
   * The delay before a retry, for templates and entries without their own. Default: exponential from 1 s up to 1 h, half
   * of it random.
   */
  backoff?: Backoff;
  /**
   * How many nodes may be lost while they run a job before the job fails with the reason "Crashed", from 1 to 1,000. A
   * lost node does not use up a retry. Default 3.
   */
  maxCrashes?: number;
  /**
   * Whether an unhandled rejection of an inline handler fails its run instead of ending the process. It takes an
   * AsyncLocalStorage, which slows down promises before Node 24. Default `true`.
   */
  attributeRejections?: boolean;
  /**
   * How long the event loop may be blocked before the process is killed (SIGKILL) so that its jobs run elsewhere, from 1
   * second. `false`: never. Time at a debugger's breakpoint does not count. Default `'60s'`.
   */
  maxEventLoopBlock?: Duration | false;
  /** The largest context that can be enqueued, in bytes of JSON, from 2 to 209,715,200. Default 1,048,576. */
  maxContextBytes?: number;
  /**
   * How long a statement of the engine may take before its connection counts as lost, from 100 ms to a day. Opening a
   * connection may take as long, but at most 5 s. Default `'10s'`.
   */
  queryTimeout?: Duration;
  /**
   * Called by each `enqueueJob` without a `manager`: returns the transaction that the call belongs to. This is how jobs
   * join a transaction of typeorm-transactional, nestjs-cls or your own helper. Outside of a transaction it returns
   * undefined, or an EntityManager that has none.
   */
  currentManager?: CurrentManager;
  /** For handlers with the isolation `'thread'` or `'process'`. Default: none can be used. */
  isolation?: IsolationOptions;
  /** Keys for templates with `encrypt: true`. Default: none. */
  encryption?: EncryptionOptions;
  /** Which log lines of handlers are stored. */
  logs?: LogOptions;
  /** OpenTelemetry traces and metrics. `true`: both, with the default options. Default `false`. */
  telemetry?: boolean | TelemetryOptions;
  /**
   * Log objects whose fields hold the facts, for loggers that write JSON. Printed, such an object is the same text.
   * Default `false`: log text.
   */
  logFields?: boolean;
  /**
   * Data that travels with each job from the call that enqueues it to its runs, by name. It is stored with the job, and
   * encrypted if the job's context is. Handlers and entities do not show it. Default: none.
   */
  carry?: Record<string, JobCarrier>;
  /**
   * Whether guards, interceptors, pipes and exception filters of the whole app (`APP_GUARD`, `useGlobalGuards`, ...) also
   * apply to handlers. Those of a handler's own class and method always do. Default `false`.
   */
  globalEnhancers?: boolean;
  shutdown?: ShutdownOptions;
}

/** Extras of `BildadModule.forRoot` and `forRootAsync`: they shape the module graph. */
export interface BildadModuleExtras {
  /** Default `true`. */
  isGlobal?: boolean;
  /** Name of the TypeORM DataSource. Default `'default'`. */
  dataSource?: string;
  /** PostgreSQL schema that holds the tables. Default `'bildad'`. */
  schema?: string;
}

export interface ShutdownOptions {
  /** How long running jobs may take to finish by themselves. Default `'30s'`. */
  drainTimeout?: Duration;
  /** How long an aborted handler may take to stop, at shutdown, timeout and kill. Default `'5s'`. */
  killGracePeriod?: Duration;
}

/** The threads and processes that run isolated handlers. */
export interface IsolationOptions {
  /**
   * URL of the file that exports the Nest module they boot, usually the app's own:
   * `new URL('./app.module.js', import.meta.url)`, or in CommonJS `pathToFileURL(require.resolve('./app.module'))`.
   */
  module: URL | string;
  /** Name of the exported Nest module, a class or a dynamic module. Default `'AppModule'`. */
  export?: string;
  /** How many threads run at once, up to 1,000. Further jobs wait for one in their slot. Default: `concurrency`. */
  threads?: number;
  /** How many processes run at once, up to 1,000. Default: `concurrency`. */
  processes?: number;
  /**
   * Memory limit in MiB. For a thread, it limits the JavaScript heap, from 64. For a process, it limits all memory, from
   * 128, including that of Node and the app's module. A number applies to both. Default: Node's own limits.
   */
  memoryLimit?: number | Partial<Record<HostKind, number>>;
  /** An idle thread or process is closed after this time, except the last one of its kind. Default `'5m'`. */
  idleTimeout?: Duration;
  /** How many connections each of them may hold per DataSource, from 1 to 100. Default 2. */
  connections?: number;
}

export interface EncryptionOptions {
  /**
   * Keys of 32 random bytes (`openssl rand -base64 32`), as base64 or a Buffer, by an id of your choice. The id is stored
   * with the data, so never give an id to another key. Keys that are no longer current decrypt old data.
   */
  keys: Record<string, string | Buffer>;
  /** The id of the key that encrypts new data. */
  current: string;
}

/** Which log lines of handlers are stored. */
export interface LogOptions {
  /** Lines of failed runs, of all runs, or none. Lines of encrypted jobs are never stored. Default `'failed'`. */
  keep?: 'failed' | 'always' | 'never';
  /** The most lines per run, from 1 to 10,000; the last ones are stored. Default 200. */
  lines?: number;
  /** The most UTF-8 bytes of a line, from 1 to 65,536; longer lines are cut. Default 2,000. */
  lineBytes?: number;
  /** The most UTF-8 bytes of all lines of a run, from 1 to 16,777,216; the oldest are dropped. Default 64,000. */
  runBytes?: number;
  /**
   * Called with each line right before it is stored; returns the text to store. If it throws or returns something else,
   * a placeholder is stored. Default: the whole line.
   */
  redact?: (line: string) => string;
  /** How long lines and progress are stored, at most as long as their run; from 1 minute. Default `'7d'`. */
  retention?: Duration;
}

/** How the span of a run relates to the span of the call that enqueued its job. */
export type SpanRelation = 'link' | 'parent';

/** Options of traces and metrics for OpenTelemetry. They need the package `@opentelemetry/api`, and an SDK set up by the app. */
export interface TelemetryOptions {
  /** A span for each call that enqueues and for each run of a handler. Default `true`. */
  traces?: boolean;
  /** The engine's metrics. Default `true`. */
  metrics?: boolean;
  /**
   * `'link'`: a run starts its own trace, with a link to the span that enqueued it. A job that waits for days or is
   * retried often then does not stretch a request's trace. `'parent'`: a run belongs to the trace that enqueued it.
   * Default `'link'`.
   */
  relation?: SpanRelation;
  /**
   * Whether spans contain the message and stack of a handler's error, which may quote the job's context. Without it, and
   * for encrypted jobs, they contain the error's class. Default `false`.
   */
  errorMessages?: boolean;
  /**
   * How long queue gauges are cached. They are read from the database; where that is slow, they are read less often, so
   * that reading takes at most a fiftieth of the time. Default `'10s'`.
   */
  queueInterval?: Duration;
}

/**
 * Captures a value at enqueue, such as a tenant, a user or a correlation id, and restores it around the job's runs.
 * @typeParam V the value: JSON of at most 8,192 bytes
 */
export interface JobCarrier<V = any> {
  /**
   * Called synchronously, once per call that enqueues (once for all jobs of `enqueueJobs`). If it throws, or returns
   * something that is not JSON, the call fails with a CarriedContextError and enqueues nothing.
   * @returns undefined: the job carries no value
   */
  capture: () => V | undefined;
  /**
   * Called around each run of a handler, also in its thread or process. It must call `next`, and return or await its
   * result, which never rejects. If it throws, the run fails.
   * @param value undefined if the job carries no value under this name; clear what an earlier run may have set
   */
  restore: (value: V | undefined, next: () => Promise<void>) => unknown;
}
