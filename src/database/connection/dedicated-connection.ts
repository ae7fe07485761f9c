import type { DataSource } from 'typeorm';
import type { Queryable } from '../tables.js';
import { cut, driverOf, optionsOver, sturdy, type ClientClass, type PgOptions } from './driver.js';

/** A connection that belongs to one user, outside of any pool. */
export interface OwnConnection extends Queryable {
  /** At once, whatever it is doing. */
  destroy(): void;
  end(): Promise<void>;
}

/** How to connect, as far as it can be handed to another thread. */
export interface PlainOptions {
  options: Record<string, unknown>;
  /** The password is made anew for each connection, on the main thread. */
  asksForPassword: boolean;
}

/** @throws when the server does not answer in time; no statement takes longer either */
export async function openConnection(
  Client: ClientClass,
  options: PgOptions,
  timeoutMs: number,
): Promise<OwnConnection> {
  const made = sturdy(options, timeoutMs);
  const client = new Client(
    optionsOver(made, {
      query_timeout: timeoutMs,
      application_name: `${String(made['application_name'])} beat`,
    }),
  );
  // Without a listener an 'error' would end the process; the next statement finds out.
  client.on('error', () => undefined);
  const destroy = () => cut(client);
  try {
    await client.connect();
  } catch (error) {
    destroy();
    throw error;
  }
  return {
    query: async (sql: string, parameters?: unknown[]) => {
      const answer = await client.query(sql, parameters);
      return Array.isArray(answer) ? [] : answer.rows;
    },
    destroy,
    end: () => client.end(),
  };
}

/** The same with the client and the options of the DataSource's pool, on this thread. Null where there is no such pool. */
export function poolClient(
  dataSource: DataSource,
): ((timeoutMs: number) => Promise<OwnConnection>) | null {
  const driver = driverOf(dataSource);
  return driver && ((timeoutMs) => openConnection(driver.Client, driver.options, timeoutMs));
}

/** What reaches the server and the login. Not what shapes a pool. */
const CROSSING = [
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
/** What makes its own way to the server, or is code. */
const STAYING = ['stream', 'Client', 'types'];

/** Null where the DataSource connects in a way that another thread cannot. */
export function plainOptions(dataSource: DataSource): PlainOptions | null {
  const own = (dataSource.options as { driver?: unknown }).driver;
  const given = driverOf(dataSource)?.options;
  if (!given || own !== undefined) return null;
  if (STAYING.some((name) => given[name] !== undefined)) return null;
  const asksForPassword = typeof given['password'] === 'function';
  const options: Record<string, unknown> = { ssl: sslOf(given) };
  for (const name of CROSSING) if (given[name] !== undefined) options[name] = given[name];
  if (asksForPassword) delete options['password'];
  try {
    return { options: structuredClone(options), asksForPassword };
  } catch {
    return null;
  }
}

/** The password that a DataSource's function says now. */
export async function currentPassword(dataSource: DataSource): Promise<string | undefined> {
  const password = driverOf(dataSource)?.options['password'];
  return typeof password === 'function'
    ? ((await (password as () => unknown)()) as string)
    : (password as string | undefined);
}

/** The pool hides the key from being enumerated, and so from being copied. */
function sslOf({ ssl }: Record<string, unknown>): unknown {
  return typeof ssl === 'object' && ssl !== null && 'key' in ssl ? { ...ssl, key: ssl.key } : ssl;
}
