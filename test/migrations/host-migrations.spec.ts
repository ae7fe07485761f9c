import { BILDAD_MIGRATIONS, BildadConfigError, bildadMigrations } from 'nestjs-bildad';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootHost } from '../support/host.js';

// A host can run the migrations itself through TypeORM. Bildad's migrator and TypeORM's each
// recognize the other's work.

let database: TestDatabase;
beforeEach(async () => {
  database = await createEmptyDatabase();
});
afterEach(() => database.drop());

async function runMigrations(migrations = BILDAD_MIGRATIONS): Promise<string[]> {
  return withHostSource(migrations, async (source) =>
    (await source.runMigrations()).map(({ name }) => name),
  );
}

async function withHostSource<T>(
  migrations: typeof BILDAD_MIGRATIONS,
  work: (source: DataSource) => Promise<T>,
): Promise<T> {
  const source = await new DataSource({
    type: 'postgres',
    url: database.url,
    migrations,
  }).initialize();
  try {
    return await work(source);
  } finally {
    await source.destroy();
  }
}

async function boot(bildad: { migrate: boolean; schema?: string }, typeorm = {}): Promise<void> {
  const app = await bootHost({
    url: database.url,
    providers: [SimpleJob],
    bildad,
    typeorm,
  });
  await app.close();
}

const versions = (schema = 'bildad') =>
  database.sql(`SELECT version FROM ${schema}.schema_versions`);

it('the host migrates first, and the app starts with migrate: false', async () => {
  expect(await runMigrations()).toHaveLength(BILDAD_MIGRATIONS.length);
  await boot({ migrate: false });
  expect(await runMigrations()).toEqual([]);
});

it('the host migrates before the module', async () => {
  await runMigrations();
  await boot({ migrate: true });
  expect(await versions()).toHaveLength(BILDAD_MIGRATIONS.length);
});

it('the module migrates before the host', async () => {
  await boot({ migrate: true });
  expect(await runMigrations()).toHaveLength(BILDAD_MIGRATIONS.length);
  expect(await versions()).toHaveLength(BILDAD_MIGRATIONS.length);
  await boot({ migrate: false });
});

it('both migrate in one boot', async () => {
  await boot({ migrate: true }, { migrations: BILDAD_MIGRATIONS, migrationsRun: true });
  expect(await versions()).toHaveLength(BILDAD_MIGRATIONS.length);
});

it("the module's migration waits while the host's runs", async () => {
  await withHostSource([], async (source) => {
    const runner = source.createQueryRunner();
    await runner.startTransaction();
    for (const Migration of BILDAD_MIGRATIONS) await new Migration().up(runner);
    const booted = boot({ migrate: true });
    await expect.poll(() => database.sql(BETWEEN_TRIES), { timeout: 10_000 }).not.toEqual([]);
    await runner.commitTransaction();
    await runner.release();
    await booted;
  });
  expect(await versions()).toHaveLength(BILDAD_MIGRATIONS.length);
});

it("the host's migration waits while another host's runs", async () => {
  await withHostSource([], async (source) => {
    const runner = source.createQueryRunner();
    await runner.startTransaction();
    for (const Migration of BILDAD_MIGRATIONS) await new Migration().up(runner);
    const second = runMigrations();
    await expect
      .poll(() =>
        database.sql('SELECT pid FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()'),
      )
      .not.toEqual([]);
    await runner.commitTransaction();
    await runner.release();
    await second;
  });
  expect(await versions()).toHaveLength(BILDAD_MIGRATIONS.length);
});

it("the host's migration sees changes committed since its transaction began", async () => {
  await withHostSource([], async (source) => {
    const runner = source.createQueryRunner();
    const up = async () => {
      for (const Migration of BILDAD_MIGRATIONS) await new Migration().up(runner);
    };
    // The session has cached plans, and has seen that the table did not exist.
    await runner.startTransaction();
    await up();
    await runner.rollbackTransaction();
    await runner.startTransaction();
    await runner.query('SELECT to_regclass($1) IS NOT NULL AS "exists"', [
      '"bildad"."schema_versions"',
    ]);
    await boot({ migrate: true });
    await up();
    await runner.commitTransaction();
    await runner.release();
  });
  expect(await versions()).toHaveLength(BILDAD_MIGRATIONS.length);
});

it('the migrations of two schemas are independent', async () => {
  const names = await runMigrations([...BILDAD_MIGRATIONS, ...bildadMigrations('other_jobs')]);
  expect(new Set(names).size).toBe(2 * BILDAD_MIGRATIONS.length);
  await boot({ migrate: false });
  await boot({ migrate: false, schema: 'other_jobs' });
  expect(await versions('other_jobs')).toHaveLength(BILDAD_MIGRATIONS.length);
});

it('the migrations cannot be reverted', async () => {
  await runMigrations();
  await withHostSource(BILDAD_MIGRATIONS, (source) =>
    expect(source.undoLastMigration()).rejects.toBeInstanceOf(BildadConfigError),
  );
  await boot({ migrate: false });
});

/** Finds a session that waits between two attempts to take the migration lock. */
const BETWEEN_TRIES = `SELECT pid FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND query = 'COMMIT'`;
