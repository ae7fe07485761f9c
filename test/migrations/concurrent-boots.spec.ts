import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { SCHEMA_VERSION } from 'nestjs-bildad';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bootApp } from '../support/app.js';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';

// A rolling deploy or a scale-up starts many nodes on an empty database at once. All of them boot,
// and the migrations run once.

const BOOT_ONCE = fileURLToPath(new URL('../../dist/test/fixtures/boot-once.js', import.meta.url));

let database: TestDatabase;
beforeEach(async () => {
  database = await createEmptyDatabase();
});
afterEach(() => database.drop());

const installed = async () => ({
  versions: await database.sql('SELECT version FROM bildad.schema_versions'),
  templates: await database.sql('SELECT code FROM bildad.job_templates'),
  configs: await database.sql('SELECT name FROM bildad.job_configs'),
});
const once = {
  versions: Array.from({ length: SCHEMA_VERSION }, (_, index) => ({
    version: index + 1,
  })),
  templates: [{ code: 'SIMPLE' }],
  configs: [{ name: 'default' }],
};

it('ten apps in one process', async () => {
  const boots = await Promise.allSettled(
    Array.from({ length: 10 }, () => bootApp({ database, providers: [SimpleJob] })),
  );
  for (const boot of boots) if (boot.status === 'fulfilled') await boot.value.close();
  expect(boots.filter(({ status }) => status === 'rejected')).toEqual([]);
  expect(await installed()).toEqual(once);
});

it('ten processes', async () => {
  const boot = () => promisify(execFile)(process.execPath, [BOOT_ONCE, database.url]);
  const output = await Promise.all(Array.from({ length: 10 }, boot));
  expect(output).toEqual(output.map(() => ({ stdout: '', stderr: '' })));
  expect(await installed()).toEqual(once);
}, 120_000);
