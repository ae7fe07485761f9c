import { setTimeout as pause } from 'node:timers/promises';
import {
  CONNECT_MS,
  cut,
  optionsOver,
  sturdy,
  type Driver,
  type PgClient,
  type PgOptions,
  type PgPool,
  type PooledClient,
} from './driver.js';
import { BusyError, isCrowded, withCode } from './connection-errors.js';

/** About as many statements of one engine are under way at once on a busy node. */
export const POOL_SIZE = 4;
/** A connection whose functions are planned is worth keeping: planning them anew takes longer than a claim. */
const IDLE_MS = 300_000;
/** After the server refused one connection too many, so long without trying for more. */
const CROWDED_MS = 30_000;

/** A pool of `pg`, of which every connection is known from its birth to its end. */
export class Connections {
  private readonly pool: PgPool;
  private readonly alive = new Set<PgClient>();
  private readonly idle = new Set<PgClient>();
  /** Cut, and perhaps still handed out by the pool, which has not heard of it. */
  private readonly dead = new WeakSet<PgClient>();
  private crowdedUntil = 0;
  private allGone: (() => void) | undefined;

  constructor(
    { Pool, Client, options }: Driver,
    private readonly waitMs: number,
    private readonly most: number,
  ) {
    const connectMs = Math.min(CONNECT_MS, waitMs);
    const born = (client: PgClient) => this.born(client);
    class EngineClient extends Client {
      constructor(given: PgOptions) {
        // The pool's own limit is that of waiting for a connection that is free.
        super(sturdy(optionsOver(options, given), connectMs));
        born(this);
      }
    }
    this.pool = new Pool(
      optionsOver(options, {
        Client: EngineClient,
        max: this.most,
        min: 1,
        idleTimeoutMillis: IDLE_MS,
        // Nobody closes what an app has made that did not start: the process is to end all the same.
        allowExitOnIdle: true,
        connectionTimeoutMillis: waitMs,
        // The engine has a clock of its own for it.
        query_timeout: 0,
        // What is asked behind another statement is sent without waiting for its answer.
        pipeline: true,
      }),
    );
    this.pool.on('error', () => undefined);
  }

  async take(): Promise<PooledClient> {
    if (this.crowdedUntil && performance.now() > this.crowdedUntil) {
      this.crowdedUntil = 0;
      this.pool.options.max = this.most;
    }
    for (;;) {
      const client = await this.connect();
      this.idle.delete(client);
      if (!this.dead.has(client)) return client;
      client.release(true);
    }
  }

  giveBack(client: PooledClient): void {
    this.idle.add(client);
    client.release();
  }

  destroy(client: PooledClient): void {
    this.kill(client);
    client.release(true);
  }

  /** Where one connection was lost, those that nobody uses are not trusted either. */
  destroyIdle(): void {
    for (const client of this.idle) this.kill(client);
    this.idle.clear();
  }

  /** Lets what is under way end, and cuts off what is left after `ms`. */
  async close(ms: number): Promise<void> {
    if (this.alive.size === 0) {
      await this.pool.end();
      return;
    }
    const gone = new Promise<void>((resolve) => {
      this.allGone = resolve;
    });
    // It waits for connections that are in use.
    this.pool.end().catch(() => undefined);
    const inTime = new AbortController();
    const late = pause(ms, undefined, { signal: inTime.signal }).then(
      () => this.alive.forEach((client) => this.kill(client)),
      () => undefined,
    );
    await gone;
    inTime.abort();
    await late;
  }

  private async connect(): Promise<PooledClient> {
    try {
      return await this.pool.connect();
    } catch (error) {
      // What pg-pool says of its own queue, and of nothing else.
      if (/timeout exceeded when trying/.test(String(error))) throw new BusyError(this.waitMs);
      if (!isCrowded(error) || this.pool.totalCount === 0) throw withCode(error as Error);
      // What there is will do.
      this.pool.options.max = this.pool.totalCount;
      this.crowdedUntil = performance.now() + CROWDED_MS;
      return this.pool.connect();
    }
  }

  private born(client: PgClient): void {
    this.alive.add(client);
    // An 'error' that nobody hears ends the process.
    client.on('error', () => undefined);
    client.on('end', () => {
      this.alive.delete(client);
      this.idle.delete(client);
      if (this.alive.size === 0) this.allGone?.();
    });
  }

  private kill(client: PgClient): void {
    this.dead.add(client);
    cut(client);
  }
}
