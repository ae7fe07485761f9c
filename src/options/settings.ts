import type { Backoff } from '../job/backoff-data.js';
import { toMilliseconds } from '../job/duration.js';
import { readEncryption, type EncryptionSettings } from './encryption-options.js';
import { BildadConfigError } from '../job/errors.js';
import { readIsolation, type IsolationSettings } from './isolation-options.js';
import { readLogs, type LogSettings } from './log-options.js';
import type { BildadModuleOptions, BildadRole, CurrentManager } from './module-options.js';
import { flag, oneOf, refuseUnknown, text, wholeNumber } from './option-values.js';
import {
  readSurroundings,
  SURROUNDINGS_NAMES,
  type SurroundingsSettings,
} from './propagation-options.js';
import { readTelemetry, type TelemetrySettings } from './telemetry-options.js';

export { DEFAULT_SCHEMA, readSchemaName } from './schema-name.js';

export type {
  BildadModuleExtras,
  BildadModuleOptions,
  BildadRole,
  CurrentManager,
} from './module-options.js';

/** The options as they were read. */
export interface Settings extends SurroundingsSettings {
  name: string;
  role: BildadRole;
  autoStart: boolean;
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
  logs: LogSettings;
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
    autoStart = true,
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
    logs,
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
    autoStart: flag(autoStart, 'autoStart'),
    concurrency: wholeNumber(concurrency, 'concurrency', 1, 100_000),
    tickMs:
      tickInterval === false ? false : toMilliseconds(tickInterval, 'tickInterval', { min: 10 }),
    notify: flag(notify, 'notify'),
    batchSize:
      batchSize === undefined ? undefined : wholeNumber(batchSize, 'batchSize', 1, 100_000),
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
    isolation: isolation === undefined ? undefined : readIsolation(isolation, concurrency),
    encryption: encryption === undefined ? undefined : readEncryption(encryption),
    logs: readLogs(logs),
    currentManager: readCurrentManager(currentManager),
    ...readSurroundings(options),
    telemetry: readTelemetry(telemetry),
    logFields: flag(logFields, 'logFields'),
  };
}

const OPTION_NAMES: readonly (keyof BildadModuleOptions)[] = [
  'name',
  'role',
  'autoStart',
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
  'logs',
  'currentManager',
  ...SURROUNDINGS_NAMES,
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
