import type { DataSource } from 'typeorm';
import type { Queryable } from '../tables.js';
import {
  destroyConnection,
  driverOf,
  mergeOptions,
  reliableOptions,
  type ClientClass,
  type PgClient,
  type PgOptions,
} from './driver.js';

/** A connection with one user, outside of any pool. */
export interface DedicatedConnection extends Queryable {
  /** The backend that the server named at login. */
  readonly processID: number | null;
  /** Ends it at once, whatever it is doing. */
  destroy(): void;
  end(): Promise<void>;
}

/** Connection options that another thread can be given. */
export interface TransferableOptions {
  options: Record<string, unknown>;
  /** A function of the host makes the password of each connection, on the main thread. */
  needsPassword: boolean;
}

/**
 * @param suffix of its name in `pg_stat_activity`
 * @throws if the server does not answer within `timeoutMs`; so does each statement
 */
export async function openConnection(
  Client: ClientClass,
  options: PgOptions,
  timeoutMs: number,
  suffix: string,
): Promise<DedicatedConnection> {
  const reliable = reliableOptions(options, timeoutMs);
  const client: PgClient = new Client(
    mergeOptions(reliable, {
      query_timeout: timeoutMs,
      application_name: `${String(reliable['application_name'])} ${suffix}`,
    }),
  );
  // Without a listener an 'error' ends the process. The next statement reports it.
  client.on('error', () => undefined);
  const destroy = () => destroyConnection(client);
  try {
    await client.connect();
  } catch (error) {
    destroy();
    throw error;
  }
  return {
    processID: client.processID ?? null,
    query: async (sql: string, parameters?: unknown[]) => {
      const answer = await client.query(sql, parameters);
      return Array.isArray(answer) ? [] : answer.rows;
    },
    destroy,
    end: () => client.end(),
  };
}

/** How to open a heartbeat's connection as the DataSource's pool does. Null if it has no pool of `pg`. */
export function heartbeatConnector(
  dataSource: DataSource,
): ((timeoutMs: number) => Promise<DedicatedConnection>) | null {
  const driver = driverOf(dataSource);
  return (
    driver && ((timeoutMs) => openConnection(driver.Client, driver.options, timeoutMs, 'heartbeat'))
  );
}

/** `pg` itself, where there is no DataSource to take it from. */
export const loadPg = () => import('pg');

/** A heartbeat's connection in another thread, which has no DataSource. */
export async function openHeartbeatConnection(
  options: PgOptions,
  timeoutMs: number,
): Promise<DedicatedConnection> {
  const { default: pg } = await loadPg();
  return openConnection(pg.Client as unknown as ClientClass, options, timeoutMs, 'heartbeat');
}

/** Options for server and login. Those that shape a pool are left out. */
const TRANSFERRED = [
  'connectionString',
  'host',
  'port',
  'user',
  'database',
  'password',
  'application_name',
  'options',
  'client_encoding',
  'replication',
  'enableChannelBinding',
  'sslnegotiation',
];
/** Options that are code, or change the way to the server: another thread cannot connect like this. */
const NOT_TRANSFERABLE = ['stream', 'Client', 'types'];

/** Null if another thread cannot connect as the DataSource does. */
export function transferableOptions(dataSource: DataSource): TransferableOptions | null {
  const customDriver = (dataSource.options as { driver?: unknown }).driver;
  const given = driverOf(dataSource)?.options;
  if (!given || customDriver !== undefined) return null;
  if (NOT_TRANSFERABLE.some((name) => given[name] !== undefined)) return null;
  const needsPassword = typeof given['password'] === 'function';
  const options: Record<string, unknown> = { ssl: sslOf(given) };
  for (const name of TRANSFERRED) if (given[name] !== undefined) options[name] = given[name];
  if (needsPassword) delete options['password'];
  try {
    return { options: structuredClone(options), needsPassword };
  } catch {
    return null;
  }
}

/** Calls the DataSource's password function. */
export async function currentPassword(dataSource: DataSource): Promise<string | undefined> {
  const password = driverOf(dataSource)?.options['password'];
  return typeof password === 'function'
    ? ((await (password as () => unknown)()) as string)
    : (password as string | undefined);
}

/** The pool makes the key non-enumerable, so a copy would not have it. */
function sslOf({ ssl }: Record<string, unknown>): unknown {
  return typeof ssl === 'object' && ssl !== null && 'key' in ssl ? { ...ssl, key: ssl.key } : ssl;
}
