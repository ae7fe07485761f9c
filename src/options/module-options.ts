import type { EntityManager } from 'typeorm';
import type { Backoff } from '../job/backoff-data.js';
import type { Duration } from '../job/duration.js';
import type { EncryptionOptions } from './encryption-options.js';
import type { IsolationOptions } from './isolation-options.js';
import type { LogOptions } from './log-options.js';
import type { SurroundingsOptions } from './propagation-options.js';
import type { TelemetryOptions } from './telemetry-options.js';

/** The host's own way to say in which transaction a call is. */
export type CurrentManager = () => EntityManager | null | undefined;

/** `'producer'` only enqueues, `'worker'` and `'all'` run jobs as well. */
export type BildadRole = 'all' | 'producer' | 'worker';

/** What shapes the engine's behaviour. Every option has a default. */
export interface BildadModuleOptions extends SurroundingsOptions {
  /** Engine name: the `JobConfig` row, and the guard it shares with other nodes. Default `'default'`. */
  name?: string;
  /** Default `'all'`. */
  role?: BildadRole;
  /** Start with the app; `false`: when `JobEngineService.start()` is called. Default `true`. */
  autoStart?: boolean;
  /** Jobs that this node runs at once. Default 10. */
  concurrency?: number;
  /** How often the engine ticks; `false`: only when `runJobEngine()` is called. Default `'1s'`. */
  tickInterval?: Duration | false;
  /**
   * Tell other processes at once what is enqueued, and hear of what they enqueue, through PostgreSQL's
   * NOTIFY and a connection of its own; `false`: they see it at their next tick. LISTEN does not work through
   * PgBouncer in transaction mode. Default `true`.
   */
  notify?: boolean;
  /** Entries started in one pass at the most. Default: as many as there are free slots, up to the config's `batchSize`. */
  batchSize?: number;
  /** Create or upgrade the schema at start. Default `true`. */
  migrate?: boolean;
  /** For templates and entries that name none. Default: exponential from 1 s, doubled up to 1 h, half of it random. */
  backoff?: Backoff;
  /**
   * Nodes that may be lost while they run a job before it fails for good, with the reason "Crashed", from 1.
   * Default 3. Such losses cost no retry.
   */
  maxCrashes?: number;
  /**
   * Whether a rejection that an inline handler leaves unhandled fails its run, and the process lives. Default `true`.
   * It takes an AsyncLocalStorage, which makes promises dearer before Node 24.
   */
  attributeRejections?: boolean;
  /**
   * How long the event loop may be blocked before the process is killed (SIGKILL), so that its jobs run elsewhere;
   * `false`: for ever. At least a second. Time at a debugger's breakpoint does not count. Default `'60s'`.
   */
  maxEventLoopBlock?: Duration | false;
  /** The largest context that may be enqueued, in bytes of JSON. Default 1,048,576. */
  maxContextBytes?: number;
  /**
   * How long a statement of the engine may go unanswered before its connection counts as dead; a new connection may
   * take as long, but no more than 5 s. From `'100ms'` up to a day. Default `'10s'`.
   */
  queryTimeout?: Duration;
  /**
   * In which transaction a call is made, asked for each `enqueueJob` that names none: how what is enqueued within
   * a transaction of typeorm-transactional, nestjs-cls or a helper of yours joins it. Without a transaction under way: undefined, or
   * any EntityManager that has none.
   */
  currentManager?: CurrentManager;
  /** For handlers with the isolation `'thread'` or `'process'`. */
  isolation?: IsolationOptions;
  /** Keys for templates with `encrypt: true`. */
  encryption?: EncryptionOptions;
  /** What is kept of what handlers log. */
  logs?: LogOptions;
  /** Traces and metrics through OpenTelemetry; `true` for both, as they are by default. Default `false`. */
  telemetry?: boolean | TelemetryOptions;
  /**
   * Whether a log line is an object with the facts as fields, for loggers that write JSON; printed it is the same text.
   * Default `false`: text.
   */
  logFields?: boolean;
  shutdown?: {
    /** How long running jobs may finish by themselves. Default `'30s'`. */
    drainTimeout?: Duration;
    /** How long an aborted handler may take to stop, at shutdown, timeout and kill. Default `'5s'`. */
    killGracePeriod?: Duration;
  };
}

/** What shapes the module graph, known when the module is declared. */
export interface BildadModuleExtras {
  /** Default `true`. */
  isGlobal?: boolean;
  /** Name of the TypeORM DataSource. Default `'default'`. */
  dataSource?: string;
  /** PostgreSQL schema that holds the tables. Default `'bildad'`. */
  schema?: string;
}
