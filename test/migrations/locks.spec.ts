import type { INestApplicationContext } from '@nestjs/common';
import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { bootHost } from '../support/host.js';

// A migration gives way to sessions that use the tables and completes when they are done.

let database: TestDatabase;
let other: pg.Client;
beforeEach(async () => {
  database = await createEmptyDatabase();
  other = new pg.Client({ connectionString: database.url });
  await other.connect();
});
afterEach(async () => {
  await other.end();
  await database.drop();
});

/**
 * Boots while `other` holds its locks. `seen` is the SQL that finds the waiting session of the
 * boot.
 */
async function bootBehind(seen: string): Promise<INestApplicationContext> {
  let settled = false;
  const booting = bootHost({ url: database.url }).finally(() => {
    settled = true;
  });
  await expect.poll(() => database.sql(seen), { timeout: 10_000 }).not.toEqual([]);
  expect(settled).toBe(false);
  await other.query('COMMIT');
  return booting;
}

it('a boot waits for the migration lock of another session', async () => {
  await other.query('BEGIN');
  await other.query(
    "SELECT pg_advisory_xact_lock(hashtextextended('nestjs-bildad migrate bildad', 0))",
  );
  const app = await bootBehind(
    `SELECT pid FROM pg_stat_activity WHERE datname = current_database()
       AND pid <> pg_backend_pid() AND pid <> ${await pidOf(other)}
       AND query = 'COMMIT'`,
  );
  expect(await database.sql('SELECT version FROM bildad.schema_versions')).not.toEqual([]);
  await app.close();
});

it.each([
  ['while the boot waits', "wait_event_type = 'Lock'"],
  ['after the boot gave way', "query = 'ROLLBACK'"],
])('a boot completes when another session created the schema %s', async (_when, seen) => {
  // CREATE SCHEMA waits for a concurrent transaction that has created the same schema.
  await other.query('BEGIN');
  await other.query('CREATE SCHEMA bildad');
  const app = await bootBehind(
    `SELECT pid FROM pg_stat_activity
       WHERE datname = current_database() AND pid <> pg_backend_pid() AND ${seen}`,
  );
  expect(await database.sql('SELECT version FROM bildad.schema_versions')).not.toEqual([]);
  await app.close();
});

async function pidOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query('SELECT pg_backend_pid() AS pid');
  return (rows[0] as { pid: number }).pid;
}
