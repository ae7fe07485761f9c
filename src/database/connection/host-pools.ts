import { setTimeout as pause } from 'node:timers/promises';
import { QueryFailedError, type DataSource } from 'typeorm';
import type { Queryable } from '../tables.js';
import { databaseCode } from '../error-code.js';
import { cut, poolsOf, type PgClient, type PgPool } from './driver.js';

/**
 * The DataSource's own connections, which nobody gives up on: where one has died without a word, `destroy` waits for
 * ever for statements that wait for ever, and a goodbye that nobody takes keeps the process from ending.
 */
export class HostPools {
  private readonly used = new Set<PgClient>();
  private readonly heard = new WeakSet<PgClient>();

  constructor(
    private readonly dataSource: DataSource,
    private readonly db: Queryable,
  ) {}

  /** From when the DataSource is initialized. */
  watch(): void {
    for (const pool of poolsOf(this.dataSource)) {
      pool.on('acquire', (client) => this.take(client));
      pool.on('release', (_error, client) => this.used.delete(client));
      pool.on('remove', (client) => this.used.delete(client));
    }
  }

  /**
   * Cuts the idle connections that say nothing within `ms`; and those in use, or being made, if the database says nothing
   * at all, not even an error. Who waits for an answer on one gets an error. Never rejects.
   */
  async cutSilent(ms: number): Promise<void> {
    const pools = poolsOf(this.dataSource);
    const idle = Promise.allSettled(
      pools.flatMap((pool) =>
        // One more than there are, and the pool would make one.
        Array.from({ length: Math.max(pool.idleCount - pool.waitingCount, 0) }, () =>
          cutIdle(pool, ms),
        ),
      ),
    );
    if (await isSilent(this.db, ms)) {
      this.used.forEach(cut);
      for (const { _clients } of pools) _clients?.forEach(cut);
    }
    await idle;
  }

  private take(client: PgClient): void {
    this.used.add(client);
    if (this.heard.has(client)) return;
    this.heard.add(client);
    // Between the pool and who takes it nobody hears a connection's 'error', which then ends the process.
    client.on('error', () => undefined);
  }
}

/** One of the idle connections; each call takes another. */
async function cutIdle(pool: PgPool, ms: number): Promise<void> {
  const client = await pool.connect();
  const silent = await isSilent(client, ms);
  if (silent) cut(client);
  client.release(silent);
}

async function isSilent(
  db: { query(sql: string): Promise<unknown> },
  ms: number,
): Promise<boolean> {
  const inTime = new AbortController();
  const late = pause(ms, true, { signal: inTime.signal }).catch(() => true);
  const answer = db.query('SELECT 1').then(
    () => false,
    (error: unknown) =>
      // That there was no answer in time is none.
      !(error instanceof QueryFailedError) || databaseCode(error) === 'ETIMEDOUT',
  );
  const silent = await Promise.race([answer, late]);
  inTime.abort();
  return silent;
}
