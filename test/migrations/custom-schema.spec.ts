import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import {
  bildadEntities,
  JobConfig,
  JobEngineService,
  JobQueueEntry,
  JobRun,
  JobsService,
  JobTemplate,
} from 'nestjs-bildad';
import { DataSource, Repository } from 'typeorm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { INestApplicationContext } from '@nestjs/common';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootHost } from '../support/host.js';

// The tables in a schema that the host chooses. No module in this file uses the default schema, so
// that no code can depend on it.

@Injectable()
class Runs {
  constructor(@InjectRepository(JobRun) readonly repository: Repository<JobRun>) {}
}

let database: TestDatabase;
let app: INestApplicationContext;
beforeAll(async () => {
  database = await createEmptyDatabase();
  app = await bootHost({
    url: database.url,
    providers: [SimpleJob, Runs],
    bildad: { schema: 'back_office' },
  });
});
afterAll(async () => {
  await app.close();
  await database.drop();
});

it('the engine creates the chosen schema and no other', async () => {
  expect(
    await database.sql("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'job\\_%'"),
  ).toEqual([{ schemaname: 'back_office' }]);
});

it('jobs run in the chosen schema, and rows are instances of the exported classes', async () => {
  const engine = app.get(JobEngineService);
  const jobs = app.get(JobsService);
  const { jobRunIdentifier } = await engine.enqueueAndRunJob(SimpleJob, {});
  const run = await engine.waitForJob(jobRunIdentifier);
  expect(run).toBeInstanceOf(JobRun);
  const [listed] = await jobs.listJobRunsForIdentifier(jobRunIdentifier);
  expect(listed).toBeInstanceOf(JobRun);
  expect(listed).toEqual(run);
  expect(await database.sql('SELECT count(*)::int AS runs FROM back_office.job_runs')).toEqual([
    { runs: 1 },
  ]);
});

it.each([
  ['JobConfig', JobConfig],
  ['JobTemplate', JobTemplate],
  ['JobQueueEntry', JobQueueEntry],
  ['JobRun', JobRun],
] as const)('getRepository reads %s of the chosen schema', async (name, exported) => {
  const source = app.get(DataSource);
  const own = bildadEntities('back_office')[name];
  expect(source.getRepository<object>(own).metadata.tablePath).toMatch(/^back_office\./);
  expect(source.getRepository<object>(exported).metadata.tablePath).toBe(
    source.getRepository<object>(own).metadata.tablePath,
  );
  expect(await source.getRepository<object>(exported).find()).toEqual(
    await source.getRepository<object>(own).find(),
  );
});

it('@InjectRepository(JobRun) reads the runs of the chosen schema', async () => {
  expect(await app.get(Runs).repository.find()).toMatchObject([
    { status: 'DONE', result: 'SUCCEEDED' },
  ]);
});
