import { connect as connectSocket } from 'node:net';
import type { DataSource, QueryRunner } from 'typeorm';
import type { Queryable } from '../tables.js';

/** The part of a `pg` client that the engine uses. */
export interface PgClient {
  connect(): Promise<unknown>;
  query(sql: string, parameters?: unknown[]): Promise<{ rows: unknown[] } | { rows: unknown[] }[]>;
  end(): Promise<void>;
  on(
    event: 'notification',
    listener: (message: { channel?: string; payload?: string }) => void,
  ): void;
  on(event: 'error' | 'end', listener: (error?: unknown) => void): void;
  host?: string;
  port?: number;
  processID?: number | null;
  secretKey?: unknown;
  /** The current statement: `activeQuery` before version 8.16. */
  _activeQuery?: unknown;
  activeQuery?: unknown;
  /** Missing in the native client. */
  connection?: { stream?: { destroy(): void } };
}

export interface PooledClient extends PgClient {
  release(error?: Error | boolean): void;
}

export interface PgPool {
  connect(): Promise<PooledClient>;
  end(): Promise<void>;
  on(event: 'error', listener: (error: unknown) => void): void;
  on(event: 'acquire' | 'remove', listener: (client: PgClient) => void): void;
  on(event: 'release', listener: (error: unknown, client: PgClient) => void): void;
  readonly totalCount: number;
  readonly idleCount: number;
  /** Requests without a connection. Includes requests of this event-loop turn that an idle connection will serve. */
  readonly waitingCount: number;
  /** All connections, including those being opened. Undocumented, but present since the first versions. */
  readonly _clients?: PgClient[];
  readonly options: PgOptions;
}

export interface PgOptions {
  [option: string]: unknown;
  max?: number;
}

export type ClientClass = new (options: PgOptions) => PgClient;
type PoolClass = new (options: PgOptions) => PgPool;

export interface Driver {
  Pool: PoolClass;
  Client: ClientClass;
  options: PgOptions;
}

/** How long opening a connection may take. */
export const CONNECT_MS = 5_000;
/** After this idle time the operating system checks whether the peer of a connection is alive. */
const KEEP_ALIVE_AFTER_MS = 10_000;

/**
 * The driver classes and options of the DataSource's primary, so that TLS, password functions,
 * sockets and `extra` apply to the engine's connections. Null if the DataSource has no pool of `pg`.
 */
export function driverOf(dataSource: DataSource): Driver | null {
  const [primary] = poolsOf(dataSource);
  if (!primary) return null;
  const { Client, options } = primary;
  return { Pool: primary.constructor as PoolClass, Client, options };
}

export interface HostPool extends PgPool {
  readonly Client: ClientClass;
}

/** The DataSource's pools of `pg`: the primary's, and those of its replicas. */
export function poolsOf(dataSource: DataSource): HostPool[] {
  const { master, slaves } = dataSource.driver as {
    master?: Partial<HostPool>;
    slaves?: Partial<HostPool>[];
  };
  return [master, ...(slaves ?? [])].filter((pool): pool is HostPool => pool?.Client !== undefined);
}

/** Merges options. `pg` makes the password non-enumerable, so that it is not printed; it stays so. */
export function mergeOptions(base: PgOptions, changes: PgOptions): PgOptions {
  const options = { ...base, ...changes };
  if ('password' in base)
    Object.defineProperty(options, 'password', {
      value: base['password'],
      enumerable: false,
      configurable: true,
      writable: true,
    });
  return options;
}

/** Options of a connection that is made within a time limit, checked while idle, and named in `pg_stat_activity`. */
export function reliableOptions(base: PgOptions, connectMs: number): PgOptions {
  const name = base['application_name'];
  return mergeOptions(base, {
    connectionTimeoutMillis: connectMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_AFTER_MS,
    application_name: typeof name === 'string' ? `${name} nestjs-bildad` : 'nestjs-bildad',
  });
}

/** Ends a connection without the protocol's goodbye, which would wait for a peer that may be gone. */
export function destroyConnection(client: PgClient): void {
  const stream = client.connection?.stream;
  if (stream) stream.destroy();
  else client.end().catch(() => undefined);
}

/** Whether `cancelStatement` can reach the server for this client. */
export const canCancel = ({ connection, host, processID, secretKey }: PgClient): boolean =>
  Boolean(connection && host && processID) && typeof secretKey === 'number';

/**
 * Asks the server to cancel the client's statement, which would keep holding locks, or waiting for
 * them. Resolves when the server has the request, or after `ms`; never rejects. The request is not
 * encrypted, as the protocol defines it (16 bytes, with a key that is valid for this connection only).
 */
export function cancelStatement(client: PgClient, ms: number): Promise<void> {
  const { host, port, processID, secretKey } = client;
  if (!canCancel(client)) return Promise.resolve();
  return new Promise((resolve) => {
    const socket = host!.startsWith('/')
      ? connectSocket(`${host}/.s.PGSQL.${port}`)
      : connectSocket(port ?? 5432, host);
    const timeout = setTimeout(() => socket.destroy(), ms);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearTimeout(timeout);
      resolve();
    });
    const request = Buffer.alloc(16);
    request.writeInt32BE(16, 0);
    request.writeInt32BE(CANCEL_REQUEST, 4);
    request.writeInt32BE(processID!, 8);
    request.writeInt32BE(secretKey as number, 12);
    // The server answers by closing the connection.
    socket.resume().end(request);
  });
}

const CANCEL_REQUEST = 80877102;

/** The part of a QueryRunner that `DataSource.query` uses. */
export const asQueryRunner = (query: Queryable['query']) =>
  ({ isReleased: false, query }) as unknown as QueryRunner;
