import { randomBytes } from 'node:crypto';
import type { Type } from '@nestjs/common';
import { Test, type TestingModule } from '@nestjs/testing';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadJob,
  BildadModule,
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
import 'nestjs-bildad/testing/vitest';
import type { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, ReportJob } from './support/shop.js';

// The modes with apps that are built in unusual ways.

const calls: unknown[] = [];

@BildadJob({ code: 'RECORDING' })
class RecordingJob implements JobHandler<object> {
  runJob(context: object) {
    calls.push(context);
  }
}

@BildadJob({ code: 'PARENT' })
class ParentJob implements JobHandler<object> {
  constructor(private readonly engine: JobEngineService) {}

  async runJob() {
    await this.engine.enqueueJob(RecordingJob, { of: 'parent' });
  }
}

@BildadJob({ code: 'OTHER', engine: 'other' })
class OtherJob implements JobHandler<object> {
  runJob() {
    calls.push('other');
  }
}

@BildadJob({ code: 'SEALED', encrypt: true })
class EncryptedJob implements JobHandler<object> {
  runJob() {}
}

@BildadJob({ code: 'VERSIONED', version: 1 })
class FirstJob implements JobHandler<object> {
  runJob() {}
}

@BildadJob({ code: 'VERSIONED', version: 2, upcast: (old) => old })
class SecondJob implements JobHandler<object> {
  runJob() {}
}

let database: TestDatabase;
let app: TestingModule | undefined;
beforeEach(async () => {
  calls.length = 0;
  database = await createDatabase();
});
afterEach(async () => {
  await app?.close();
  await database.drop();
});

async function boot(
  testing: BildadTestingOptions = {},
  options: BildadModuleOptions & BildadModuleExtras = {},
  pool?: object,
) {
  app = await Test.createTestingModule({
    imports: [
      AppModule.on(database.url, options, pool),
      { module: class Jobs {}, providers: [RecordingJob, ParentJob] },
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

it('inline: a context with a property named manager is not taken for options', async () => {
  const { engine } = await boot({ mode: 'inline' });
  await engine.transaction(async () => {
    await engine.enqueueJob(RecordingJob, { manager: 'bob' });
    expect(calls).toEqual([]);
  });
  expect(calls).toEqual([{ manager: 'bob' }]);
});

it('drain reports a database error of a job that it runs early', async () => {
  const { testing, engine, dataSource } = await boot();
  await engine.enqueueJob(RecordingJob, {}, { delay: '1h' });
  await dataSource.query('ALTER TABLE bildad.job_runs ADD CONSTRAINT nope CHECK (false) NOT VALID');
  await expect(testing.drain({ withScheduled: true })).rejects.toThrow(/nope/);
});

it('drain runs the jobs of an engine with autoStart: false', async () => {
  const { testing, engine } = await boot({}, { autoStart: false });
  await engine.enqueueJob(RecordingJob, { n: 1 });
  await engine.enqueueJob(RecordingJob, { n: 2 }, { delay: '1h' });
  const runs = await testing.drain({ withScheduled: true });
  expect(runs).toHaveLength(2);
});

it.each([1, 10])(
  'inline: transactions that use all %i connections of the pool do not wait for their jobs',
  async (max) => {
    const { engine, dataSource } = await boot({ mode: 'inline' }, {}, { max });
    await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        dataSource.transaction(async (manager) => {
          await engine.enqueueJob(RecordingJob, { n }, { manager });
        }),
      ),
    );
    expect(calls).toHaveLength(10);
  },
);

it('inline: a transaction of one DataSource does not hold back the jobs of another', async () => {
  const others = await createDatabase();
  const engineAs = (provide: string) => ({
    provide,
    inject: [JobEngineService],
    useFactory: (engine: JobEngineService) => ({ engine }),
  });
  app = await Test.createTestingModule({
    imports: [
      AppModule.on(database.url),
      {
        module: class OtherModule {},
        imports: [
          TypeOrmModule.forRoot({
            name: 'other',
            type: 'postgres',
            url: others.url,
            autoLoadEntities: true,
            retryAttempts: 0,
          }),
          BildadModule.forRoot({
            name: 'other',
            isGlobal: false,
            dataSource: 'other',
          }),
        ],
        providers: [OtherJob, engineAs('other')],
      },
      { module: class Mine {}, providers: [engineAs('mine')] },
      BildadTestingModule.forRoot({ mode: 'inline' }),
    ],
  }).compile();
  await app.init();
  type EngineHolder = { engine: JobEngineService };
  const mine = app.get<EngineHolder>('mine', { strict: false });
  const other = app.get<EngineHolder>('other', { strict: false });
  await mine.engine.transaction(async () => {
    await other.engine.enqueueJob(OtherJob, {});
    expect(calls).toEqual(['other']);
  });
  await app.close();
  app = undefined;
  await others.drop();
});

it.each([
  {
    lacks: 'its key',
    first: EncryptedJob,
    second: EncryptedJob,
  },
  {
    lacks: 'its version',
    first: SecondJob,
    second: FirstJob,
  },
])('drain skips a job when this process lacks $lacks', async ({ first, second }) => {
  const deploy = async (job: Type<JobHandler>, key: string) => {
    const keys = { [key]: randomBytes(32).toString('base64') };
    app = await Test.createTestingModule({
      imports: [
        AppModule.on(database.url, { encryption: { keys, current: key } }),
        { module: class Jobs {}, providers: [job, RecordingJob] },
        BildadTestingModule.forRoot(),
      ],
    }).compile();
    await app.init();
    return app.get(JobEngineService, { strict: false });
  };
  const before = await deploy(first, 'a');
  await before.enqueueJob(first, {}, { delay: '1h' });
  await app!.close();
  const engine = await deploy(second, 'b');
  await engine.enqueueJob(RecordingJob, {}, { delay: '2h' });
  const testing = app!.get(BildadTesting);
  const options = { withScheduled: true, withRetries: true };
  const runs = await testing.drain(options);
  expect(runs.map(({ code }) => code)).toEqual(['RECORDING']);
  await expect(testing).toHaveEnqueued(second, undefined, {
    status: 'AVAILABLE',
  });
});

it('two engines that share a schema list each job once', async () => {
  app = await Test.createTestingModule({
    imports: [
      AppModule.on(database.url),
      {
        module: class OtherModule {},
        imports: [BildadModule.forRoot({ name: 'other', isGlobal: false })],
        providers: [OtherJob],
      },
      { module: class Jobs {}, providers: [RecordingJob] },
      BildadTestingModule.forRoot(),
    ],
  }).compile();
  await app.init();
  const testing = app.get(BildadTesting);
  const engine = app.get(JobEngineService, { strict: false });
  await engine.enqueueJob(OtherJob, {});
  const begun = gate();
  ReportJob.begun = () => begun.open();
  const report = await engine.enqueueJob(ReportJob, {});
  await engine.runJob(report);
  await begun.opened;
  await expect(testing).toHaveEnqueuedTimes(OtherJob, 1);
  const jobs = await testing.enqueued();
  expect(jobs.map(({ engine: of, code }) => `${of} ${code}`)).toEqual([
    'other OTHER',
    expect.stringMatching(/ REPORT$/),
  ]);
  const like = { engine: 'default' };
  await expect(testing).not.toHaveEnqueued(OtherJob, {}, like);
  expect(await testing.leaks()).toEqual([`REPORT ${report.jobRunIdentifier} is RUNNING`]);
  await engine.cancelJob(report);
  const runs = await testing.drain();
  expect(runs.filter(({ code }) => code === 'OTHER')).toHaveLength(1);
});

it('inline: a job enqueued by a job that enqueueAndRunJob started runs as well', async () => {
  const { engine } = await boot({ mode: 'inline' });
  await engine.enqueueAndRunJob(ParentJob, {});
  await expect.poll(() => calls).toEqual([{ of: 'parent' }]);
});
