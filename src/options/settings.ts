import { createSecretKey, type KeyObject } from 'node:crypto';
import { BildadConfigError } from '../job/errors.js';
import type { JsonValue } from '../job/json.js';
import { backoff } from './job-options.js';
import type {
  BildadModuleExtras,
  BildadModuleOptions,
  CurrentManager,
  EncryptionOptions,
  IsolationOptions,
  JobCarrier,
  LogOptions,
  ShutdownOptions,
  TelemetryOptions,
} from './module-options.js';
import {
  boolean,
  callback,
  check,
  duration,
  group,
  integer,
  oneOf,
  optional,
  or,
  string,
  typeName,
  withDefault,
  type Check,
  type Read,
  type SchemaOf,
} from './reader.js';

// The checks and defaults of the module's options. The interfaces in module-options.ts describe them.

const MAX_MIB = 1_048_576;
const MAX_HOSTS = 1_000;
/** Node with Nest and TypeORM uses about this much. */
export const MIN_PROCESS_MIB = 128;
/** PostgreSQL refuses jsonb values of 256 MB and more. */
const MAX_CONTEXT_BYTES = 200 * 1_048_576;
const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const DAY = 24 * 60 * MINUTE;
const KEY_BYTES = 32;
const MAX_CARRIER_NAME = 50;
/** Names under which the engine itself carries data. */
const RESERVED_CARRIERS = ['trace'];
export const DEFAULT_SCHEMA = 'bildad';
/** Where the module's options come from, for errors. */
export const FOR_ROOT = 'BildadModule.forRoot';

/** Lower case, so that the name needs no quotes; short, so that index names fit into PostgreSQL's 63 bytes. */
const schemaName = check<string>(
  (value) => typeof value === 'string' && /^(?!pg_)[a-z_][a-z0-9_]{0,40}$/.test(value),
  'must be a PostgreSQL schema name of at most 41 lower case letters, digits and underscores, not starting with pg_',
);

/** @throws BildadConfigError */
export const readSchemaName = (value: unknown): string => schemaName(value, 'schema', FOR_ROOT);

/** @throws BildadConfigError about the first wrong one */
export const readExtras = group({
  isGlobal: withDefault(boolean, true),
  dataSource: withDefault(string(), 'default'),
  schema: withDefault(schemaName, DEFAULT_SCHEMA),
} satisfies SchemaOf<BildadModuleExtras>);

const checkUrl = check<URL | string>(
  (value) => URL.canParse(String(value)),
  "must be the URL of a module, such as new URL('./app.module.js', import.meta.url)",
);
const moduleUrl: Check<string> = (...args) => String(checkUrl(...args));

const readMemoryLimits = group({
  thread: optional(integer(64, MAX_MIB)),
  process: optional(integer(MIN_PROCESS_MIB, MAX_MIB)),
});
const memoryLimit: Check<ReturnType<typeof readMemoryLimits>> = (value, field, where) => {
  if (typeof value === 'object') return readMemoryLimits(value, field, where);
  const limit = integer(64, MAX_MIB)(value, field, where);
  return { thread: limit, process: limit };
};

const ISOLATION = {
  module: moduleUrl,
  export: withDefault(string(), 'AppModule'),
  threads: optional(integer(1, MAX_HOSTS)),
  processes: optional(integer(1, MAX_HOSTS)),
  memoryLimit: withDefault(memoryLimit, {}),
  idleTimeout: withDefault(duration({ min: 10 }), '5m'),
  connections: withDefault(integer(1, 100), 2),
} satisfies SchemaOf<IsolationOptions>;

/** A KeyObject, so that printed settings do not show the key. */
const encryptionKey: Check<KeyObject> = (value, field, where) => {
  const bytes =
    typeof value === 'string' && /^[A-Za-z0-9+/_-]+={0,2}$/.test(value)
      ? Buffer.from(value, 'base64')
      : value;
  if (!(bytes instanceof Uint8Array) || bytes.length !== KEY_BYTES) {
    const received = bytes instanceof Uint8Array ? `${bytes.length} bytes` : typeName(value);
    throw new BildadConfigError(
      field,
      `must be ${KEY_BYTES} bytes as base64 or a Buffer, not ${received}`,
      { where },
    );
  }
  return createSecretKey(Buffer.from(bytes));
};

const encryptionKeys: Check<ReadonlyMap<string, KeyObject>> = (value, field, where) =>
  new Map(
    entriesOf(value, 'keys by id', field, where).map(([id, key]) => [
      string(100)(id, `${field}: an id`, where),
      encryptionKey(key, `${field}.${id}`, where),
    ]),
  );

const readEncryption = group({
  keys: encryptionKeys,
  current: (value) => value,
} satisfies SchemaOf<EncryptionOptions>);

/** Errors never show a key. */
const encryption: Check<EncryptionSettings> = (value, field, where) => {
  const { keys, current } = readEncryption(value, field, where);
  if (typeof current !== 'string' || !keys.has(current))
    throw new BildadConfigError(
      `${field}.current`,
      `must be the id of one of ${field}.keys (${[...keys.keys()].join(', ') || 'there are none'}), not ${typeName(current)}`,
      { where },
    );
  return { keys, current };
};

const LOGS = {
  keep: withDefault(oneOf('failed', 'always', 'never'), 'failed'),
  lines: withDefault(integer(1, 10_000), 200),
  lineBytes: withDefault(integer(1, 65_536), 2_000),
  runBytes: withDefault(integer(1, 16_777_216), 64_000),
  redact: optional(callback<(line: string) => string>('returns the text to store of a line')),
  retention: withDefault(duration({ min: MINUTE }), '7d'),
} satisfies SchemaOf<LogOptions>;
export const readLogs = group(LOGS);

const TELEMETRY = {
  traces: withDefault(boolean, true),
  metrics: withDefault(boolean, true),
  relation: withDefault(oneOf('link', 'parent'), 'link'),
  errorMessages: withDefault(boolean, false),
  queueInterval: withDefault(duration(), '10s'),
} satisfies SchemaOf<TelemetryOptions>;
const readTelemetry = group(TELEMETRY);
const telemetry: typeof readTelemetry = (value, field, where) =>
  typeof value === 'boolean'
    ? readTelemetry({ traces: value, metrics: value }, field, where)
    : readTelemetry(value, field, where);

export interface NamedCarrier extends JobCarrier<JsonValue> {
  name: string;
}

const checkMethod = check((value) => typeof value === 'function', 'must be a function');

/** The first carrier is the outermost one. */
const carriers: Check<readonly NamedCarrier[]> = (value, field, where) =>
  entriesOf(value, 'carriers by name', field, where).map(([name, given]) => {
    string(MAX_CARRIER_NAME)(name, `${field}: a name`, where);
    if (RESERVED_CARRIERS.includes(name))
      throw new BildadConfigError(`${field}.${name}`, 'is reserved: choose another name', {
        where,
      });
    // It may be an instance of a class, so its methods are called on it.
    const carrier = given as JobCarrier<JsonValue>;
    for (const method of ['capture', 'restore'] as const)
      checkMethod(
        (given as Partial<JobCarrier> | null)?.[method],
        `${field}.${name}.${method}`,
        where,
      );
    return {
      name,
      capture: () => carrier.capture(),
      restore: (value, next) => carrier.restore(value, next),
    };
  });

function entriesOf(
  value: unknown,
  content: string,
  field: string,
  where?: string,
): [string, unknown][] {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BildadConfigError(field, `must be an object of ${content}, not ${typeName(value)}`, {
      where,
    });
  return Object.entries(value);
}

const SHUTDOWN = {
  drainTimeout: withDefault(duration(), '30s'),
  killGracePeriod: withDefault(duration(), '5s'),
} satisfies SchemaOf<ShutdownOptions>;

const MODULE = {
  name: withDefault(string(), 'default'),
  role: withDefault(oneOf('all', 'producer', 'worker'), 'all'),
  autoStart: withDefault(boolean, true),
  concurrency: withDefault(integer(1, 100_000), 10),
  tickInterval: withDefault(or(duration({ min: 10 }), false), '1s'),
  notify: withDefault(boolean, true),
  batchSize: optional(integer(1, 100_000)),
  migrate: withDefault(boolean, true),
  backoff: withDefault(backoff, { type: 'exponential' }),
  maxCrashes: withDefault(integer(1, 1_000), 3),
  attributeRejections: withDefault(boolean, true),
  maxEventLoopBlock: withDefault(or(duration({ min: SECOND }), false), '60s'),
  maxContextBytes: withDefault(integer(2, MAX_CONTEXT_BYTES), 1_048_576),
  queryTimeout: withDefault(duration({ min: 100, max: DAY }), '10s'),
  currentManager: optional(callback<CurrentManager>('returns an EntityManager or undefined')),
  isolation: optional(group(ISOLATION)),
  encryption: optional(encryption),
  logs: withDefault(readLogs, {}),
  telemetry: withDefault(telemetry, false),
  logFields: withDefault(boolean, false),
  carry: withDefault(carriers, {}),
  globalEnhancers: withDefault(boolean, false),
  shutdown: withDefault(group(SHUTDOWN), {}),
} satisfies SchemaOf<BildadModuleOptions>;
const readModule = group(MODULE);

export interface EncryptionSettings {
  keys: ReadonlyMap<string, KeyObject>;
  current: string;
}
export type IsolationSettings = Read<typeof ISOLATION> & Record<'threads' | 'processes', number>;
export type LogSettings = Read<typeof LOGS>;

/** The module's options with their defaults. Durations are in milliseconds. */
export interface Settings extends Omit<Read<typeof MODULE>, 'isolation'> {
  isolation: IsolationSettings | undefined;
  /** The most connections of the engine's own pool; undefined: as many as it can use. */
  connections?: number;
}

/** @throws BildadConfigError about the first wrong option */
export function readSettings(options: BildadModuleOptions = {}): Settings {
  const settings = readModule(options, '', FOR_ROOT);
  const { isolation, concurrency } = settings;
  const hosts = Math.min(concurrency, MAX_HOSTS);
  return {
    ...settings,
    isolation: isolation && {
      ...isolation,
      threads: isolation.threads ?? hosts,
      processes: isolation.processes ?? hosts,
    },
  };
}
