import { SCHEMA_VERSION, SchemaVersionError } from 'nestjs-bildad';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { bootError, bootHost } from '../support/host.js';

// A package works with tables of its own version, and of no other.

let database: TestDatabase;
beforeEach(async () => {
  database = await createDatabase();
});
afterEach(() => database.drop());

async function install(): Promise<void> {
  const app = await bootHost({ url: database.url });
  await app.close();
}

it.each([true, false])(
  'tables that are newer than the package are refused, migrate: %s',
  async (migrate) => {
    await install();
    await database.sql(
      "INSERT INTO bildad.schema_versions (version, name) VALUES (999, 'Later')",
    );
    const error = await bootError({ url: database.url, bildad: { migrate } });
    expect(error).toBeInstanceOf(SchemaVersionError);
    expect(error).toMatchObject({
      schema: 'bildad',
      databaseVersion: 999,
      packageVersion: SCHEMA_VERSION,
    });
    expect(error.message).toMatch(/newer than the package, upgrade/);
  },
);

it('without tables migrate: false is refused, and makes none', async () => {
  const error = await bootError({
    url: database.url,
    bildad: { migrate: false },
  });
  expect(error).toBeInstanceOf(SchemaVersionError);
  expect(error).toMatchObject({ databaseVersion: 0 });
  expect(error.message).toMatch(/run BILDAD_MIGRATIONS, or set migrate: true/);
  expect(
    await database.sql("SELECT to_regnamespace('bildad') AS made"),
  ).toEqual([{ made: null }]);
});

it('tables of an older version are refused with migrate: false', async () => {
  await install();
  await database.sql('DELETE FROM bildad.schema_versions WHERE version = $1', [
    SCHEMA_VERSION,
  ]);
  const error = await bootError({
    url: database.url,
    bildad: { migrate: false },
  });
  expect(error).toBeInstanceOf(SchemaVersionError);
  expect(error).toMatchObject({ databaseVersion: SCHEMA_VERSION - 1 });
});

it('a schema of that name that is there already is used, and what is in it stays', async () => {
  await database.sql('CREATE SCHEMA bildad');
  await database.sql('CREATE TABLE bildad.mine (id int)');
  await install();
  await install();
  expect(await database.sql('SELECT * FROM bildad.mine')).toEqual([]);
});
