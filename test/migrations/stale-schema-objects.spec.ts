import { bildadMigrations } from 'nestjs-bildad';
import { expect, it } from 'vitest';
import { STEPS } from '../../src/database/migrations/index.js';
import { tablesOf } from '../../src/database/tables.js';
import { createEmptyDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootHost } from '../support/host.js';

it.each([
  ['dropSchema', { dropSchema: true }],
  ['dropSchema and synchronize', { dropSchema: true, synchronize: true }],
])('an app with %s starts again and again', async (_name, typeorm) => {
  const database = await createEmptyDatabase();
  for (let start = 0; start < 2; start++)
    await (await bootHost({ url: database.url, providers: [SimpleJob], typeorm })).close();
  await database.drop();
});

it('functions with other signatures, left by another version, are replaced', async () => {
  const database = await createEmptyDatabase();
  await database.sql('CREATE SCHEMA bildad');
  await database.sql(
    `CREATE FUNCTION bildad.claim_jobs (node text) RETURNS integer LANGUAGE sql AS 'SELECT 1'`,
  );
  await (await bootHost({ url: database.url, providers: [SimpleJob] })).close();
  const functions = await database.sql(
    `SELECT proname FROM pg_proc WHERE pronamespace = 'bildad'::regnamespace AND proname = 'claim_jobs'`,
  );
  expect(functions).toHaveLength(1);
  await database.drop();
});

it('the SQL of every migration is ASCII, so that databases of any encoding accept it', () => {
  const statements = STEPS.flatMap((step) => step.statements(tablesOf('bildad')));
  expect(statements.length).toBeGreaterThan(10);
  // eslint-disable-next-line no-control-regex
  expect(statements.filter((statement) => /[^\x00-\x7f]/.test(statement))).toEqual([]);
  expect(bildadMigrations()).toHaveLength(STEPS.length);
});
