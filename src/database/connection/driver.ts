import { connect as connectSocket } from 'node:net';
import type { DataSource } from 'typeorm';

/** As much of a `pg` client as the engine takes. */
export interface PgClient {
  connect(): Promise<unknown>;
  query(sql: string, parameters?: unknown[]): Promise<{ rows: unknown[] } | { rows: unknown[] }[]>;
  end(): Promise<void>;
  on(event: 'notification', heard: (message: { channel?: string; payload?: string }) => void): void;
  on(event: 'error' | 'end', gone: (error?: unknown) => void): void;
  host?: string;
  port?: number;
  processID?: number | null;
  secretKey?: unknown;
  /** Not there in the native client. */
  connection?: { stream?: { destroy(): void } };
}

export interface PooledClient extends PgClient {
  release(error?: Error | boolean): void;
}

export interface PgPool {
  connect(): Promise<PooledClient>;
  end(): Promise<void>;
  on(event: 'error', heard: (error: unknown) => void): void;
  on(event: 'acquire' | 'remove', heard: (client: PgClient) => void): void;
  on(event: 'release', heard: (error: unknown, client: PgClient) => void): void;
  readonly totalCount: number;
  readonly idleCount: number;
  /** Those who have asked for a connection, also in this very turn, when it is idle still. */
  readonly waitingCount: number;
  /** All there are, those included that are being made. Not documented, and there since the first versions. */
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

/** A new connection is there within this time, or is given up. */
export const CONNECT_MS = 5_000;
/** From then on an idle connection is asked by the system whether it lives. */
const KEEP_ALIVE_AFTER_MS = 10_000;

/**
 * What the DataSource's own connections to the primary are made with, so that TLS, password functions, sockets and
 * `extra` are the same. Null where the DataSource has no pool of `pg` (a driver that stands in for it).
 */
export function driverOf(dataSource: DataSource): Driver | null {
  const [master] = poolsOf(dataSource);
  if (!master) return null;
  return {
    Pool: master.constructor as PoolClass,
    Client: master.Client,
    options: master.options,
  };
}

interface HostPool extends PgPool {
  readonly Client: ClientClass;
}

/** The DataSource's own pools: the primary's, and those of its replicas. None where they are not of `pg`. */
export function poolsOf(dataSource: DataSource): HostPool[] {
  const { master, slaves } = dataSource.driver as {
    master?: Partial<HostPool>;
    slaves?: Partial<HostPool>[];
  };
  return [master, ...(slaves ?? [])].filter((pool): pool is HostPool => pool?.Client !== undefined);
}

/** The same options with others over them. `pg` hides the password from spreading and printing; so it stays. */
export function optionsOver(given: PgOptions, over: PgOptions): PgOptions {
  const options = { ...given, ...over };
  if ('password' in given)
    Object.defineProperty(options, 'password', {
      value: given['password'],
      enumerable: false,
      configurable: true,
      writable: true,
    });
  return options;
}

/** Options of a connection that neither hangs for ever while it is made nor dies unnoticed; named for who looks into `pg_stat_activity`. */
export function sturdy(given: PgOptions, connectMs: number): PgOptions {
  const name = given['application_name'];
  return optionsOver(given, {
    connectionTimeoutMillis: connectMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_AFTER_MS,
    application_name: typeof name === 'string' ? `${name} nestjs-bildad` : 'nestjs-bildad',
  });
}

/** Cuts a connection without a word: a goodbye would wait for the answer of a peer that may be gone. */
export function cut(client: PgClient): void {
  const stream = client.connection?.stream;
  if (stream) stream.destroy();
  else client.end().catch(() => undefined);
}

/**
 * Asks the server to stop what it does for this client: a statement that nobody waits for any more would go on
 * holding locks, and waiting for them. Resolves when it has been asked, or after `ms`; never rejects. It goes unencrypted,
 * as the protocol has it (16 bytes, a key that is good for this one connection).
 */
export function cancelStatement(
  { host, port, processID, secretKey, connection }: PgClient,
  ms: number,
): Promise<void> {
  if (!connection || !host || !processID || typeof secretKey !== 'number') return Promise.resolve();
  return new Promise((resolve) => {
    const socket = host.startsWith('/')
      ? connectSocket(`${host}/.s.PGSQL.${port}`)
      : connectSocket(port ?? 5432, host);
    const over = setTimeout(() => socket.destroy(), ms);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearTimeout(over);
      resolve();
    });
    const request = Buffer.alloc(16);
    request.writeInt32BE(16, 0);
    request.writeInt32BE(CANCEL_REQUEST, 4);
    request.writeInt32BE(processID, 8);
    request.writeInt32BE(secretKey, 12);
    // The server answers by closing.
    socket.resume().end(request);
  });
}

const CANCEL_REQUEST = 80877102;
