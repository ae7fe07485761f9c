import { expect } from 'vitest';
import type { TestApp } from './app.js';

/** Locks the rows of a SELECT, so that another statement waits for them. */
export async function lockRows(
  { dataSource }: TestApp,
  select: string,
  values: unknown[] = [],
): Promise<() => Promise<void>> {
  const runner = dataSource.createQueryRunner();
  await runner.startTransaction();
  await runner.query(`${select} FOR UPDATE`, values);
  return async () => {
    await runner.commitTransaction();
    await runner.release();
  };
}

/** Resolves when a statement that contains `text` waits for a lock. Only PostgreSQL can tell. */
export async function waitingForLock({ database }: TestApp, text: string): Promise<void> {
  await expect
    .poll(
      () =>
        database.sql(
          `SELECT FROM pg_stat_activity WHERE datname = current_database()
             AND wait_event_type = 'Lock' AND strpos(query, $1) > 0`,
          [text],
        ),
      { interval: 20 },
    )
    .not.toEqual([]);
}
