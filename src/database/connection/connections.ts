import { waitAtMost } from '../../concurrency/timers.js';
import {
  CONNECT_MS,
  destroyConnection,
  mergeOptions,
  reliableOptions,
  type Driver,
  type PgClient,
  type PgOptions,
  type PgPool,
  type PooledClient,
} from './driver.js';
import { BusyError, isCrowded, withCode } from './connection-errors.js';

/** After the server refused a connection because it has too many, the pool does not grow for this time. */
const CROWDED_MS = 30_000;
/** Destroying a socket takes no longer. */
const DESTROY_MS = 1_000;

export interface ConnectionsOptions {
  max: number;
  /** Connections that stay, even if they are idle. */
  min: number;
  idleMs: number;
  /** How long to wait for a free connection. */
  waitMs: number;
}

/** A pool of `pg` that tracks each of its connections. */
export class Connections {
  private readonly pool: PgPool;
  private readonly alive = new Set<PgClient>();
  private readonly idle = new Set<PgClient>();
  /** Destroyed connections. The pool may still hand them out. */
  private readonly dead = new WeakSet<PgClient>();
  private crowdedUntil = 0;
  private onEmpty: (() => void) | undefined;

  constructor(
    { Pool, Client, options }: Driver,
    private readonly limits: ConnectionsOptions,
  ) {
    const { max, min, idleMs, waitMs } = limits;
    const connectMs = Math.min(CONNECT_MS, waitMs);
    const add = (client: PgClient) => this.add(client);
    class EngineClient extends Client {
      constructor(poolOptions: PgOptions) {
        // The pool's timeout limits the wait for a free connection, not the opening of one.
        super(reliableOptions(mergeOptions(options, poolOptions), connectMs));
        add(this);
      }
    }
    this.pool = new Pool(
      mergeOptions(options, {
        Client: EngineClient,
        max,
        min,
        idleTimeoutMillis: idleMs,
        // Nothing closes the pool of an app that failed to start. The process must end all the same.
        allowExitOnIdle: true,
        connectionTimeoutMillis: waitMs,
        // The engine measures the time itself.
        query_timeout: 0,
        // A second statement is sent without waiting for the answer to the first.
        pipeline: true,
      }),
    );
    this.pool.on('error', () => undefined);
  }

  async acquire(): Promise<PooledClient> {
    if (this.crowdedUntil && performance.now() > this.crowdedUntil) {
      this.crowdedUntil = 0;
      this.pool.options.max = this.limits.max;
    }
    for (;;) {
      const client = await this.connect();
      this.idle.delete(client);
      if (!this.dead.has(client)) return client;
      client.release(true);
    }
  }

  release(client: PooledClient): void {
    this.idle.add(client);
    client.release();
  }

  destroy(client: PooledClient): void {
    this.kill(client);
    client.release(true);
  }

  /** Destroys idle connections after one was lost, because they may be dead too. */
  destroyIdle(): void {
    for (const client of this.idle) this.kill(client);
    this.idle.clear();
  }

  /** Lets statements end, and destroys the connections that are left after `ms`. Never takes much longer. */
  async close(ms: number): Promise<void> {
    if (this.alive.size === 0) return this.pool.end();
    const empty = new Promise<void>((resolve) => {
      this.onEmpty = resolve;
    });
    // Waits for connections in use.
    this.pool.end().catch(() => undefined);
    await waitAtMost(ms, empty);
    for (const client of this.alive) this.kill(client);
    await waitAtMost(DESTROY_MS, empty);
  }

  private async connect(): Promise<PooledClient> {
    try {
      return await this.pool.connect();
    } catch (error) {
      // The pool's message about its own queue.
      if (/timeout exceeded when trying/.test(String(error)))
        throw new BusyError(this.limits.waitMs);
      if (!isCrowded(error) || this.pool.totalCount === 0) throw withCode(error as Error);
      // The pool continues with the existing connections.
      this.pool.options.max = this.pool.totalCount;
      this.crowdedUntil = performance.now() + CROWDED_MS;
      return this.pool.connect();
    }
  }

  private add(client: PgClient): void {
    this.alive.add(client);
    // Without a listener an 'error' ends the process.
    client.on('error', () => undefined);
    client.on('end', () => {
      this.alive.delete(client);
      this.idle.delete(client);
      if (this.alive.size === 0) this.onEmpty?.();
    });
  }

  private kill(client: PgClient): void {
    this.dead.add(client);
    destroyConnection(client);
  }
}
