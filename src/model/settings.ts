import type { EntityManager } from 'typeorm';
import type { Backoff } from './backoff.js';
import { toMilliseconds, type Duration } from './duration.js';
import {
  readEncryption,
  type EncryptionOptions,
  type EncryptionSettings,
} from './encryption-options.js';
import { BildadConfigError } from './errors.js';
import {
  readIsolation,
  type IsolationOptions,
  type IsolationSettings,
} from './isolation-options.js';
import {
  flag,
  oneOf,
  refuseUnknown,
  text,
  wholeNumber,
} from './option-values.js';
import {
  readTelemetry,
  type TelemetryOptions,
  type TelemetrySettings,
} from './telemetry-options.js';

export { DEFAULT_SCHEMA, readSchemaName } from './schema-name.js';

/** The host's own way to say in which transaction a call is. */
export type CurrentManager = () => EntityManager | null | undefined;

/** `'producer'` only enqueues, `'worker'` and `'all'` run jobs as well. */
export type BildadRole = 'all' | 'producer' | 'worker';

/** What shapes the engine's behaviour. Every option has a default. */
export interface BildadModuleOptions {
  /** Engine name: the `JobConfig` row, and the guard it shares with other nodes. Default `'default'`. */
  name?: string;
  /** Default `'all'`. */
  role?: BildadRole;
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

export interface Settings {
  name: string;
  role: BildadRole;
  concurrency: number;
  tickMs: number | false;
  notify: boolean;
  batchSize: number | undefined;
  migrate: boolean;
  backoff: Backoff;
  maxContextBytes: number;
  queryTimeoutMs: number;
  maxCrashes: number;
  attributeRejections: boolean;
  maxBlockMs: number | false;
  drainMs: number;
  killGraceMs: number;
  isolation: IsolationSettings | undefined;
  encryption: EncryptionSettings | undefined;
  currentManager: CurrentManager | undefined;
  telemetry: TelemetrySettings;
  logFields: boolean;
  /** Of the engine's own; undefined: as many as it can use. */
  connections?: number;
}

const ROLES: readonly BildadRole[] = ['all', 'producer', 'worker'];

/** The options as the engine uses them; @throws BildadConfigError naming the first wrong one */
export function readSettings(options: BildadModuleOptions = {}): Settings {
  refuseUnknown(options, '', OPTION_NAMES);
  const {
    name = 'default',
    role = 'all',
    concurrency = 10,
    tickInterval = '1s',
    notify = true,
    batchSize,
    migrate = true,
    backoff = { type: 'exponential' },
    maxContextBytes = 1_048_576,
    queryTimeout = '10s',
    maxCrashes = 3,
    attributeRejections = true,
    maxEventLoopBlock = '60s',
    isolation,
    encryption,
    currentManager,
    telemetry = false,
    logFields = false,
    shutdown = {},
  } = options;
  refuseUnknown(shutdown, 'shutdown.', ['drainTimeout', 'killGracePeriod']);
  const { drainTimeout = '30s', killGracePeriod = '5s' } = shutdown;
  return {
    name: text(name, 'name'),
    role: oneOf(role, 'role', ROLES),
    concurrency: wholeNumber(concurrency, 'concurrency', 1, 100_000),
    tickMs:
      tickInterval === false
        ? false
        : toMilliseconds(tickInterval, 'tickInterval', { min: 10 }),
    notify: flag(notify, 'notify'),
    batchSize:
      batchSize === undefined
        ? undefined
        : wholeNumber(batchSize, 'batchSize', 1, 100_000),
    migrate: flag(migrate, 'migrate'),
    backoff,
    maxContextBytes: wholeNumber(
      maxContextBytes,
      'maxContextBytes',
      2,
      // PostgreSQL refuses a jsonb of 256 MB and more.
      200 * 1_048_576,
    ),
    queryTimeoutMs: toMilliseconds(queryTimeout, 'queryTimeout', {
      min: 100,
      max: 24 * 3_600_000,
    }),
    maxCrashes: wholeNumber(maxCrashes, 'maxCrashes', 1, 1_000),
    attributeRejections: flag(attributeRejections, 'attributeRejections'),
    maxBlockMs:
      maxEventLoopBlock === false
        ? false
        : toMilliseconds(maxEventLoopBlock, 'maxEventLoopBlock', {
            min: 1_000,
          }),
    drainMs: toMilliseconds(drainTimeout, 'shutdown.drainTimeout'),
    killGraceMs: toMilliseconds(killGracePeriod, 'shutdown.killGracePeriod'),
    isolation:
      isolation === undefined
        ? undefined
        : readIsolation(isolation, concurrency),
    encryption:
      encryption === undefined ? undefined : readEncryption(encryption),
    currentManager: readCurrentManager(currentManager),
    telemetry: readTelemetry(telemetry),
    logFields: flag(logFields, 'logFields'),
  };
}

const OPTION_NAMES: readonly (keyof BildadModuleOptions)[] = [
  'name',
  'role',
  'concurrency',
  'tickInterval',
  'notify',
  'batchSize',
  'migrate',
  'backoff',
  'maxContextBytes',
  'queryTimeout',
  'maxCrashes',
  'attributeRejections',
  'maxEventLoopBlock',
  'isolation',
  'encryption',
  'currentManager',
  'telemetry',
  'logFields',
  'shutdown',
];

function readCurrentManager(given: unknown): CurrentManager | undefined {
  if (given !== undefined && typeof given !== 'function')
    throw new BildadConfigError(
      'currentManager',
      'a function that returns an EntityManager or undefined',
      given,
    );
  return given as CurrentManager | undefined;
}
