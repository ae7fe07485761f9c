import { SCHEMA_VERSION, SchemaVersionError } from 'nestjs-bildad';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { SchemaVersionCheck } from '../../src/node/schema-version-check.js';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { bootApp } from '../support/app.js';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootError, bootHost } from '../support/host.js';

// A package works with tables of its own version, and with newer tables that allow it.

let database: TestDatabase;
beforeEach(async () => {
  database = await createEmptyDatabase();
});
afterEach(() => database.drop());

async function install(): Promise<void> {
  const app = await bootHost({ url: database.url });
  await app.close();
}

it.each([true, false])(
  'tables newer than the package are rejected, migrate: %s',
  async (migrate) => {
    await install();
    await database.sql("INSERT INTO bildad.schema_versions (version, name) VALUES (999, 'Later')");
    const error = await bootError({ url: database.url, bildad: { migrate } });
    expect(error).toBeInstanceOf(SchemaVersionError);
    expect(error).toMatchObject({
      schema: 'bildad',
      databaseVersion: 999,
      packageVersion: SCHEMA_VERSION,
    });
    expect(error.message).toMatch(/newer than version \d+ of this nestjs-bildad: upgrade/);
  },
);

it('migrate: false without tables is rejected and creates none', async () => {
  const error = await bootError({
    url: database.url,
    bildad: { migrate: false },
  });
  expect(error).toBeInstanceOf(SchemaVersionError);
  expect(error).toMatchObject({ databaseVersion: 0 });
  expect(error.message).toMatch(/run BILDAD_MIGRATIONS, or set migrate: true/);
  expect(await database.sql("SELECT to_regnamespace('bildad') AS made")).toEqual([{ made: null }]);
});

it('migrate: false with tables of an older version is rejected', async () => {
  await install();
  await database.sql('DELETE FROM bildad.schema_versions WHERE version = $1', [SCHEMA_VERSION]);
  const error = await bootError({
    url: database.url,
    bildad: { migrate: false },
  });
  expect(error).toBeInstanceOf(SchemaVersionError);
  expect(error).toMatchObject({ databaseVersion: SCHEMA_VERSION - 1 });
});

it('an existing schema of that name is used and keeps its contents', async () => {
  await database.sql('CREATE SCHEMA bildad');
  await database.sql('CREATE TABLE bildad.mine (id int)');
  await install();
  await install();
  expect(await database.sql('SELECT * FROM bildad.mine')).toEqual([]);
});

/** A migration of a future package version. */
const upgrade = (minReader: number | null) =>
  database.sql(
    "INSERT INTO bildad.schema_versions (version, name, min_reader) VALUES (999, 'Later', $1)",
    [minReader],
  );

it.each([true, false])(
  'newer tables that allow this package are used, migrate: %s',
  async (migrate) => {
    await install();
    await upgrade(SCHEMA_VERSION);
    const app = await bootApp({
      providers: [SimpleJob],
      options: { migrate },
      database,
    });
    const run = await app.engine.enqueueAndRunJob(SimpleJob, { say: 'hi' });
    expect(await app.engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
      output: 'hi',
    });
    await app.close();
  },
);

it('newer tables that do not allow this package are rejected', async () => {
  await install();
  await upgrade(SCHEMA_VERSION + 1);
  expect(await bootError({ url: database.url })).toBeInstanceOf(SchemaVersionError);
});

it('a later migration does not allow older packages again', async () => {
  await install();
  await upgrade(SCHEMA_VERSION + 1);
  await database.sql(
    "INSERT INTO bildad.schema_versions (version, name, min_reader) VALUES (1000, 'Careless', 1)",
  );
  expect(await bootError({ url: database.url })).toBeInstanceOf(SchemaVersionError);
});

it('a running node stops claiming when its package is too old, warns once, and continues when it is allowed again', async () => {
  const app = await bootApp({ providers: [SimpleJob], database });
  const {
    store,
    node,
    events,
    settings,
    pass: enginePass,
  } = (app.engine as unknown as { bildad: BildadRuntime }).bildad;
  const outdatedEvents: unknown[] = [];
  events.on('engine.outdated', ({ error }) => outdatedEvents.push(error));
  let now = 0;
  const versions = new SchemaVersionCheck({ store, events, node, settings }, () => now);
  Object.assign(enginePass, { versions });
  const pass = (afterMs: number) => {
    now += afterMs;
    return app.engine.runJobEngine();
  };

  await upgrade(SCHEMA_VERSION);
  const entries = await app.engine.enqueueJobs(SimpleJob, [{}, {}]);
  expect((await pass(6_000)).start).toHaveLength(2);
  for (const { jobRunIdentifier } of entries) await app.engine.waitForJob(jobRunIdentifier);

  await database.sql('UPDATE bildad.schema_versions SET min_reader = 999');
  const entry = await app.engine.enqueueJob(SimpleJob, {});
  for (const afterMs of [6_000, 6_000, 1])
    expect(await pass(afterMs)).toEqual({
      start: [],
      expire: [],
      alreadyRunning: false,
    });
  await expect(app.engine.runJob(entry)).rejects.toThrow(/older than/);
  expect(outdatedEvents).toMatchObject([{ databaseVersion: 999, packageVersion: SCHEMA_VERSION }]);

  await database.sql('UPDATE bildad.schema_versions SET min_reader = 1');
  expect((await pass(6_000)).start).toHaveLength(1);
  expect(outdatedEvents).toHaveLength(2);
  await app.engine.waitForJob(entry.jobRunIdentifier);
  await app.close();
});
