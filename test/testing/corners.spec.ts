import { Test, type TestingModule } from '@nestjs/testing';
import { getDataSourceToken } from '@nestjs/typeorm';
import {
  BildadJob,
  JobEngineService,
  JobEvents,
  type BildadModuleExtras,
  type BildadModuleOptions,
  type JobHandler,
} from 'nestjs-bildad';
import {
  BildadTesting,
  BildadTestingModule,
  type BildadTestingOptions,
} from 'nestjs-bildad/testing';
import type { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { AppModule } from './support/shop.js';

// What the modes make of apps that are built in other ways than most.

const ran: unknown[] = [];

@BildadJob({ code: 'NOTED' })
class NotedJob implements JobHandler<object> {
  runJob(context: object) {
    ran.push(context);
  }
}

let database: TestDatabase;
let app: TestingModule | undefined;
beforeEach(async () => {
  ran.length = 0;
  database = await createDatabase();
});
afterEach(async () => {
  await app?.close();
  await database.drop();
});

async function boot(
  testing: BildadTestingOptions = {},
  options: BildadModuleOptions & BildadModuleExtras = {},
) {
  app = await Test.createTestingModule({
    imports: [
      AppModule.on(database.url, options),
      { module: class Jobs {}, providers: [NotedJob] },
      BildadTestingModule.forRoot(testing),
    ],
  }).compile();
  await app.init();
  return {
    testing: app.get(BildadTesting),
    engine: app.get(JobEngineService, { strict: false }),
    events: app.get(JobEvents, { strict: false }),
    dataSource: app.get<DataSource>(getDataSourceToken(), { strict: false }),
  };
}

it('inline: a context with a manager of its own is no options', async () => {
  const { engine } = await boot({ mode: 'inline' });
  await engine.transaction(async () => {
    await engine.enqueueJob(NotedJob, { manager: 'bob' });
    expect(ran).toEqual([]);
  });
  expect(ran).toEqual([{ manager: 'bob' }]);
});

it('drain says what the database has against a job that it runs early', async () => {
  const { testing, engine, dataSource } = await boot();
  await engine.enqueueJob(NotedJob, {}, { delay: '1h' });
  await dataSource.query(
    'ALTER TABLE bildad.job_runs ADD CONSTRAINT nope CHECK (false) NOT VALID',
  );
  await expect(testing.drain({ withScheduled: true })).rejects.toThrow(/nope/);
});

it('an engine that is started later runs jobs in a test at once', async () => {
  const { testing, engine } = await boot({}, { autoStart: false });
  await engine.enqueueJob(NotedJob, { n: 1 });
  await engine.enqueueJob(NotedJob, { n: 2 }, { delay: '1h' });
  const runs = await testing.drain({ withScheduled: true });
  expect(runs).toHaveLength(2);
});
