import { Test, type TestingModule } from '@nestjs/testing';
import { getDataSourceToken } from '@nestjs/typeorm';
import { BildadConfigError, BildadJob, JobEngineService, type JobHandler } from 'nestjs-bildad';
import { BildadTesting, BildadTestingModule } from 'nestjs-bildad/testing';
import type { DataSource } from 'typeorm';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, Mailer, MailJob, ReportJob } from './support/shop.js';

// Time passes for jobs only when the test advances the clock.

@BildadJob({ code: 'SYNC' })
class SyncJob implements JobHandler<object> {
  static work: () => unknown;

  runJob() {
    return SyncJob.work();
  }
}
const sync = () =>
  engine.enqueueJob(SyncJob, {}, { unique: { key: 'k', onConflict: 'keepLatest' } });

let database: TestDatabase;
let app: TestingModule;
let testing: BildadTesting;
let mailer: Mailer;
let engine: JobEngineService;
const MAIL = { to: 'a@example.com', subject: 'x' };

beforeAll(async () => {
  database = await createDatabase();
  app = await Test.createTestingModule({
    imports: [
      AppModule.on(database.url),
      { module: class Jobs {}, providers: [SyncJob] },
      BildadTestingModule.forRoot(),
    ],
  }).compile();
  await app.init();
  testing = app.get(BildadTesting);
  mailer = app.get(Mailer, { strict: false });
  engine = app.get(JobEngineService, { strict: false });
});
afterAll(async () => {
  await app.close();
  await database.drop();
});
beforeEach(() => testing.begin());
afterEach(() => testing.rollback());

const outcomes = async () => (await testing.drain()).map(({ outcome }) => outcome);

it('advancing the clock makes delayed and scheduled jobs due', async () => {
  await engine.enqueueJob(MailJob, MAIL, { delay: '2h' });
  const tomorrow = new Date(Date.now() + 24 * 3_600_000);
  await engine.enqueueJob(MailJob, MAIL, { runAt: tomorrow });
  await testing.clock.advance('119m');
  expect(await outcomes()).toEqual([]);
  await testing.clock.advance('1m');
  expect(await outcomes()).toEqual(['completed']);
  await testing.clock.set(tomorrow);
  expect(await outcomes()).toEqual(['completed']);
});

it('advancing the clock makes retries due after their backoff', async () => {
  mailer.failures = 1;
  await engine.enqueueJob(MailJob, MAIL);
  expect(await outcomes()).toEqual(['failed']);
  await testing.clock.advance('9m');
  expect(await outcomes()).toEqual([]);
  await testing.clock.advance('1m');
  expect(await outcomes()).toEqual(['completed']);
});

it('advancing the clock times out a running job', async () => {
  const begun = gate();
  ReportJob.begun = () => begun.open();
  await engine.enqueueJob(ReportJob, {});
  const running = testing.drain();
  await begun.opened;
  await testing.clock.advance('29m');
  expect((await testing.leaks()).join()).toMatch(/REPORT .* is RUNNING/);
  await testing.clock.advance('1m');
  expect(await running).toMatchObject([
    { outcome: 'timedOut', entry: 'removed', run: { reason: 'Timeout' } },
  ]);
});

it('advancing the clock affects startBefore, throttle keys and olderThan', async () => {
  await engine.enqueueJob(MailJob, MAIL, { startBefore: '1h', delay: '30m' });
  await testing.clock.advance('2h');
  expect(await outcomes()).toEqual(['missed']);
  const throttled = () => engine.enqueueJob(MailJob, MAIL, { throttle: { key: 'k', every: '1d' } });
  await throttled();
  expect(await outcomes()).toEqual(['completed']);
  await throttled();
  expect(await outcomes()).toEqual([]);
  await testing.clock.advance('1d');
  await throttled();
  expect(await outcomes()).toEqual(['completed']);
  await engine.enqueueJob(MailJob, MAIL);
  await testing.clock.advance('8d');
  expect(await engine.cancelJobs({ job: MailJob, olderThan: '7d' })).toMatchObject({ removed: 1 });
});

it('a job held by keepLatest stays held while time passes, and starts when its key is free', async () => {
  SyncJob.work = async () => {
    SyncJob.work = () => undefined;
    await sync();
  };
  await sync();
  expect(await testing.runNext()).toMatchObject({ outcome: 'completed' });
  await testing.clock.advance('1h');
  expect(await outcomes()).toEqual(['completed']);
});

it('a job held by keepLatest does not start beside the job with its key', async () => {
  const [begun, done] = [gate(), gate()];
  SyncJob.work = () => {
    begun.open();
    return done.opened;
  };
  const holder = await sync();
  await engine.runJob(holder);
  await begun.opened;
  await sync();
  SyncJob.work = () => undefined;
  expect(await testing.drain({ withScheduled: true })).toEqual([]);
  done.open();
  await engine.waitForJob(SyncJob, holder.jobRunIdentifier);
  expect(await outcomes()).toEqual(['completed']);
});

it("the clock does not change the app's tables, not even those in the engine's schema", async () => {
  const { manager } = app.get<DataSource>(getDataSourceToken(), {
    strict: false,
  });
  await manager.query('CREATE TABLE bildad.bills AS SELECT now() AS due');
  const due = () => manager.query('SELECT due FROM bildad.bills');
  const before = await due();
  await testing.clock.advance('1h');
  expect(await due()).toEqual(before);
});

it('a rollback resets the clock', async () => {
  const ahead = testing.clock.now().getTime() - Date.now();
  expect(Math.abs(ahead)).toBeLessThan(1_000);
  await testing.clock.advance('1d');
  const passed = testing.clock.now().getTime() - Date.now();
  expect(Math.abs(passed - 86_400_000)).toBeLessThan(1_000);
});

it('the clock does not go backwards', async () => {
  await expect(testing.clock.set(new Date(0))).rejects.toThrow(BildadConfigError);
  await expect(testing.clock.advance('soon')).rejects.toThrow(/by/);
});
