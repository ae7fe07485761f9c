import type { INestApplicationContext } from '@nestjs/common';
import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { bootHost } from '../support/host.js';

// A boot gives way to whoever is at the tables, and comes through when they are done.

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

/** Boots while `other` holds its locks; `seen` finds the boot's session at work meanwhile. */
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

it('waits for the migration lock that another session holds', async () => {
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
  ['while it waits', "wait_event_type = 'Lock'"],
  ['after it gave way', "query = 'ROLLBACK'"],
])('comes through when another session made the schema %s', async (_when, seen) => {
  // CREATE SCHEMA waits for the end of whoever has created the same one.
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
