import type { DataSource } from 'typeorm';
import type { Queryable } from './tables.js';

/** A connection that belongs to one user, outside of any pool. */
export interface OwnConnection extends Queryable {
  /** At once, whatever it is doing. */
  destroy(): void;
  end(): Promise<void>;
}

/** As much of a `pg` client as that takes. */
export interface OwnClient {
  connect(): Promise<unknown>;
  end(): Promise<void>;
  query(sql: string, parameters?: unknown[]): Promise<{ rows: unknown[] }>;
  on(event: 'error', gone: (error: unknown) => void): void;
  connection?: { stream?: { destroy(): void } };
}

/** How to connect, as far as it can be handed to another thread. */
export interface PlainOptions {
  options: Record<string, unknown>;
  /** The password is made anew for each connection, on the main thread. */
  asksForPassword: boolean;
}

/** @throws when the server does not answer in time; no statement takes longer either */
export async function openConnection(
  Client: new (options: object) => OwnClient,
  options: object,
  timeoutMs: number,
): Promise<OwnConnection> {
  const client = new Client({
    ...options,
    connectionTimeoutMillis: timeoutMs,
    query_timeout: timeoutMs,
    keepAlive: true,
  });
  // Without a listener an 'error' would end the process; the next statement finds out.
  client.on('error', () => undefined);
  const destroy = () => client.connection?.stream?.destroy();
  try {
    await client.connect();
  } catch (error) {
    destroy();
    throw error;
  }
  return {
    query: async (sql: string, parameters?: unknown[]) =>
      (await client.query(sql, parameters)).rows,
    destroy,
    end: () => client.end(),
  };
}

interface Pool {
  Client?: new (options: object) => OwnClient;
  options: Record<string, unknown>;
}

const poolOf = (dataSource: DataSource) =>
  (dataSource.driver as { master?: Pool }).master;

/** The same with the client and the options of the DataSource's pool, on this thread. Null where there is no such pool. */
export function poolClient(
  dataSource: DataSource,
): ((timeoutMs: number) => Promise<OwnConnection>) | null {
  const pool = poolOf(dataSource);
  const Client = pool?.Client;
  if (!pool || !Client) return null;
  const { options } = pool;
  return (timeoutMs) =>
    openConnection(
      Client,
      // Not enumerable in the pool's own options.
      { ...options, password: options['password'], ssl: sslOf(options) },
      timeoutMs,
    );
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
  const pool = poolOf(dataSource);
  const own = (dataSource.options as { driver?: unknown }).driver;
  if (!pool?.Client || own !== undefined) return null;
  const given = pool.options;
  if (STAYING.some((name) => given[name] !== undefined)) return null;
  const asksForPassword = typeof given['password'] === 'function';
  const options: Record<string, unknown> = { ssl: sslOf(given) };
  for (const name of CROSSING)
    if (given[name] !== undefined) options[name] = given[name];
  if (asksForPassword) delete options['password'];
  try {
    return { options: structuredClone(options), asksForPassword };
  } catch {
    return null;
  }
}

/** The password that a DataSource's function says now. */
export async function currentPassword(
  dataSource: DataSource,
): Promise<string | undefined> {
  const password = poolOf(dataSource)?.options['password'];
  return typeof password === 'function'
    ? ((await (password as () => unknown)()) as string)
    : (password as string | undefined);
}

/** The pool hides the key from being enumerated, and so from being copied. */
function sslOf({ ssl }: Record<string, unknown>): unknown {
  return typeof ssl === 'object' && ssl !== null && 'key' in ssl
    ? { ...ssl, key: ssl.key }
    : ssl;
}
