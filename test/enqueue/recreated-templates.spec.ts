import { Test } from '@nestjs/testing';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadError,
  BildadModule,
  DuplicateJobError,
  JobEngineService,
  JobTemplateNotFoundError,
} from 'nestjs-bildad';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase } from '../support/database.js';

// A template is cached for a few seconds. If it is deleted and created again, an enqueue loads the new one.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ options: { role: 'producer' } });
});
afterAll(() => bildad.close());

const remove = () =>
  bildad.sql('DELETE FROM bildad.job_keys').then(async () => {
    await bildad.sql('DELETE FROM bildad.job_queue_entries');
    await bildad.sql('DELETE FROM bildad.job_templates');
  });

/** Caches the template of this code, then replaces it. @returns the id of the new one */
async function replaceTemplate(): Promise<string> {
  await remove();
  await bildad.jobs.createJobTemplate({ code: 'X' });
  await bildad.engine.enqueueJob('X', {});
  await remove();
  const [{ id }] = await bildad.sql(
    `INSERT INTO bildad.job_templates (code, name, job_module_name) VALUES ('X', 'X', '') RETURNING id::text`,
  );
  return id;
}

const ways: [string, () => Promise<{ jobTemplateId: string } | { jobTemplateId: string }[]>][] = [
  ['a generated identifier', () => bildad.engine.enqueueJob('X', {})],
  ['a chosen identifier', () => bildad.engine.enqueueJob('X', {}, { jobRunIdentifier: 'chosen' })],
  ['a key', () => bildad.engine.enqueueJob('X', {}, { unique: { key: 'k' } })],
  [
    'a key and a chosen identifier',
    () => bildad.engine.enqueueJob('X', {}, { unique: { key: 'k' }, jobRunIdentifier: 'keyed' }),
  ],
  ['startBefore', () => bildad.engine.enqueueJob('X', {}, { startBefore: '1h' })],
  [
    'many jobs',
    () =>
      bildad.engine.enqueueJobs(
        'X',
        Array.from({ length: 4_500 }, () => ({})),
      ),
  ],
];

describe.each(ways)('enqueueing with %s', (_what, enqueue) => {
  let id: string;
  beforeEach(async () => {
    id = await replaceTemplate();
  });

  it('uses the new template', async () => {
    for (const entry of [await enqueue()].flat()) expect(entry.jobTemplateId).toBe(id);
  });

  it('uses the new template in a transaction', async () => {
    const entries = await bildad.engine.transaction(enqueue);
    for (const entry of [entries].flat()) expect(entry.jobTemplateId).toBe(id);
  });

  it('fails if the template is deleted', async () => {
    await remove();
    await expect(enqueue()).rejects.toBeInstanceOf(JobTemplateNotFoundError);
  });
});

it('an identifier that is taken is still refused', async () => {
  await replaceTemplate();
  const enqueue = () => bildad.engine.enqueueJob('X', {}, { jobRunIdentifier: 'taken' });
  await enqueue();
  await expect(enqueue()).rejects.toBeInstanceOf(DuplicateJobError);
  await expect(bildad.engine.transaction(enqueue)).rejects.toBeInstanceOf(DuplicateJobError);
});

it('an enqueue before init() fails with an error that names init()', async () => {
  const database = await createDatabase();
  const module = await Test.createTestingModule({
    imports: [
      TypeOrmModule.forRoot({ type: 'postgres', url: database.url, autoLoadEntities: true }),
      BildadModule.forRoot({ role: 'producer', schema: 'not_migrated' }),
    ],
  }).compile();
  try {
    const error: unknown = await module
      .get(JobEngineService)
      .enqueueJob('X', {})
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BildadError);
    expect(error).toMatchObject({
      code: 'BILDAD_DATABASE',
      databaseCode: '42P01',
      message: expect.stringMatching(/enqueue after the app's init\(\)/),
    });
  } finally {
    await module.get<DataSource>(getDataSourceToken()).destroy();
    await database.drop();
  }
});
