import { setTimeout as pause } from 'node:timers/promises';
import { QueryFailedError, type DataSource } from 'typeorm';
import type { Queryable } from '../tables.js';
import { cut, poolsOf, type PgClient } from './driver.js';

/**
 * The DataSource's own connections, which nobody gives up on: while the database does not answer, `destroy` waits for
 * ever for statements that wait for ever, and a goodbye that nobody takes keeps the process from ending.
 */
export class HostPools {
  private readonly taken = new Set<PgClient>();

  constructor(
    private readonly dataSource: DataSource,
    private readonly db: Queryable,
  ) {}

  /** From when the DataSource is initialized. */
  watch(): void {
    for (const pool of poolsOf(this.dataSource)) {
      pool.on('acquire', (client) => this.taken.add(client));
      pool.on('remove', (client) => this.taken.delete(client));
    }
  }

  /**
   * Cuts every connection if the database says nothing within `ms`, not even an error; who waits for an answer on one
   * gets an error. Never rejects.
   */
  async cutIfSilent(ms: number): Promise<void> {
    if (await this.isSilent(ms)) await this.cut().catch(() => undefined);
  }

  private async isSilent(ms: number): Promise<boolean> {
    const inTime = new AbortController();
    const late = pause(ms, true, { signal: inTime.signal }).catch(() => true);
    const answer = this.db.query('SELECT 1').then(
      () => false,
      (error: unknown) => !(error instanceof QueryFailedError),
    );
    const silent = await Promise.race([answer, late]);
    inTime.abort();
    return silent;
  }

  private async cut(): Promise<void> {
    for (const pool of poolsOf(this.dataSource))
      while (pool.idleCount > 0) {
        const client = await pool.connect();
        cut(client);
        client.release(true);
      }
    this.taken.forEach(cut);
  }
}
