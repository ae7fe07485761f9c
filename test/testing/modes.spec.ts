import { Test, type TestingModule } from '@nestjs/testing';
import {
  BildadConfigError,
  BildadJob,
  BildadModule,
  JobEngineService,
  type JobHandler,
} from 'nestjs-bildad';
import {
  BildadTesting,
  BildadTestingModule,
  closeTesting,
  type BildadTestingOptions,
} from 'nestjs-bildad/testing';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, Mailer, MailJob, OrderService, ReportJob } from './support/shop.js';

// The modes with an app that is written without regard to tests.

let database: TestDatabase;
let app: TestingModule | undefined;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());
afterEach(async () => {
  await app?.get(BildadTesting).clear();
  await app?.close();
  app = undefined;
});

async function boot(options?: BildadTestingOptions, url = database.url) {
  app = await Test.createTestingModule({
    imports: [AppModule.on(url), BildadTestingModule.forRoot(options)],
  }).compile();
  await app.init();
  return {
    testing: app.get(BildadTesting),
    orders: app.get(OrderService, { strict: false }),
    mailer: app.get(Mailer, { strict: false }),
    engine: app.get(JobEngineService, { strict: false }),
  };
}

it('manual: nothing runs until the test drains the queue', async () => {
  const { testing, orders, mailer } = await boot();
  const order = await orders.place('ada@example.com');
  expect(mailer.sent).toEqual([]);
  const runs = await testing.drain();
  expect(runs).toMatchObject([
    {
      code: 'MAIL',
      outcome: 'completed',
      entry: 'removed',
      run: { output: 'mail 1' },
    },
  ]);
  const later = await testing.drain({ withScheduled: true });
  expect(later.map(({ code }) => code)).toEqual(['SHIP', 'MAIL']);
  expect(await orders.find(order.id)).toMatchObject({ status: 'shipped' });
  expect(mailer.sent.map(({ subject }) => subject)).toEqual(['thank you', 'shipped']);
});

it('inline: a job has run when its enqueue resolves', async () => {
  const { orders, mailer, engine } = await boot({ mode: 'inline' });
  await orders.remind('ada@example.com');
  expect(mailer.sent).toHaveLength(1);
  // The job runs at the commit, not before.
  await orders.place('bob@example.com');
  expect(mailer.sent).toHaveLength(2);
  await engine.transaction(async () => {
    await orders.remind('eve@example.com');
    expect(mailer.sent).toHaveLength(2);
  });
  expect(mailer.sent).toHaveLength(3);
  await Promise.all(['a', 'b', 'c'].map((name) => orders.remind(`${name}@example.com`)));
  expect(mailer.sent).toHaveLength(6);
});

it('inline: a job fails as in production, or throws with throwFailures', async () => {
  const { orders, mailer } = await boot({ mode: 'inline' });
  mailer.failures = 1;
  await orders.remind('ada@example.com');
  expect(mailer.sent).toEqual([]);
  await app!.get(BildadTesting).clear();
  await app!.close();
  const thrower = await boot({ mode: 'inline', throwFailures: true });
  thrower.mailer.failures = 1;
  await expect(thrower.orders.remind('ada@example.com')).rejects.toThrow(
    /^MAIL .* has failed: the mail server is down$/,
  );
});

it('real: the engine runs jobs by itself', async () => {
  const { orders, mailer } = await boot({ mode: 'real' });
  await orders.place('ada@example.com');
  await expect.poll(() => mailer.sent.length).toBe(1);
});

it('the test controls two engines, one of which comes from a factory', async () => {
  @BildadJob({ code: 'AUDIT', engine: 'audits' })
  class AuditJob implements JobHandler<object, string> {
    runJob() {
      return 'seen';
    }
  }
  class Auditor {
    constructor(readonly engine: JobEngineService) {}
  }
  class AuditModule {}
  app = await Test.createTestingModule({
    imports: [
      AppModule.on(database.url),
      {
        module: AuditModule,
        imports: [
          BildadModule.forRootAsync({
            isGlobal: false,
            schema: 'audits',
            useFactory: () => ({ name: 'audits' }),
          }),
        ],
        providers: [
          AuditJob,
          {
            provide: Auditor,
            inject: [JobEngineService],
            useFactory: (engine: JobEngineService) => new Auditor(engine),
          },
        ],
      },
      BildadTestingModule.forRoot(),
    ],
  }).compile();
  await app.init();
  const testing = app.get(BildadTesting);
  const { engine } = app.get(Auditor, { strict: false });
  await testing.inTransaction(async () => {
    await engine.enqueueJob(AuditJob, {});
    await app!.get(OrderService, { strict: false }).place('ada@example.com');
    const jobs = await testing.enqueued();
    expect(jobs.map(({ code, engine }) => `${engine} ${code}`).toSorted()).toEqual([
      'audits AUDIT',
      'default MAIL',
      'default SHIP',
    ]);
    const runs = await testing.drain();
    expect(runs.map(({ code }) => code).toSorted()).toEqual(['AUDIT', 'MAIL']);
    expect(runs.find(({ code }) => code === 'AUDIT')?.run.output).toBe('seen');
    await testing.clock.advance('1h');
    expect((await testing.drain()).map(({ code }) => code)).toEqual(['SHIP', 'MAIL']);
  });
  expect(await testing.enqueued()).toEqual([]);
});

it('two apps run side by side, each in its own transaction', async () => {
  const others = await createDatabase();
  const mine = await boot();
  const first = app!;
  const other = await boot(undefined, others.url);
  try {
    await Promise.all([mine.testing.begin(), other.testing.begin()]);
    await mine.orders.place('ada@example.com');
    await expect(other.testing.enqueued()).resolves.toEqual([]);
    await other.orders.place('bob@example.com');
    await Promise.all([mine.testing.drain(), other.testing.drain()]);
    expect(mine.mailer.sent).toMatchObject([{ to: 'ada@example.com' }]);
    expect(other.mailer.sent).toMatchObject([{ to: 'bob@example.com' }]);
    await mine.testing.rollback();
    expect(await other.orders.count()).toBe(1);
    await other.testing.rollback();
  } finally {
    await app!.close();
    await others.drop();
    app = first;
  }
});

it('closeTesting closes the app and reports a running job', async () => {
  const { testing, engine } = await boot();
  const begun = gate();
  ReportJob.begun = () => begun.open();
  await engine.enqueueJob(ReportJob, {});
  const drained = testing.drain().catch(() => undefined);
  await begun.opened;
  await expect(closeTesting(app)).rejects.toThrow(
    /^the test has left behind: REPORT .* is RUNNING$/,
  );
  await drained;
  const next = await boot();
  expect(await next.testing.leaks()).toEqual([]);
});

it('an unsupported call fails with a message that names what is missing', async () => {
  expect(() => BildadTestingModule.forRoot({ mode: 'fake' as 'real' })).toThrow(BildadConfigError);
  expect(() => BildadTestingModule.forRoot({ throwFailures: true })).toThrow(
    /^throwFailures needs the mode 'inline'/,
  );
  const { testing } = await boot({ mode: 'real' });
  await expect(testing.begin()).rejects.toThrow(/^mode must be/);
  await app!.close();
  app = await Test.createTestingModule({
    imports: [BildadTestingModule.forRoot()],
  }).compile();
  await app.init();
  await expect(app.get(BildadTesting).drain()).rejects.toThrow(/BildadModule/);
  await app.close();
  app = undefined;
});

it('drain runs by priority, retries on request, and stops at its limit', async () => {
  const { testing, engine, mailer } = await boot();
  const mail = (subject: string, priority: number) =>
    engine.enqueueJob(MailJob, { to: 'a@example.com', subject }, { priority });
  await mail('second', 5);
  await mail('first', 1);
  const first = await testing.runNext();
  expect(first?.run.jobContext).toMatchObject({ subject: 'first' });
  mailer.failures = 2;
  const runs = await testing.drain({ withRetries: true });
  expect(runs.map(({ outcome, entry }) => `${outcome} ${entry}`)).toEqual([
    'failed reopened',
    'failed reopened',
    'completed removed',
  ]);
  expect(await testing.runNext()).toBeNull();
  for (let n = 0; n < 3; n++) await mail('more', 5);
  await expect(testing.drain({ limit: 2 })).rejects.toThrow(/^more than 2 runs/);
});

it('a test can run the jobs of a producer', async () => {
  app = await Test.createTestingModule({
    imports: [AppModule.on(database.url, { role: 'producer' }), BildadTestingModule.forRoot()],
  }).compile();
  await app.init();
  await app.get(OrderService, { strict: false }).place('ada@example.com');
  expect(await app.get(BildadTesting).drain()).toMatchObject([
    { code: 'MAIL', outcome: 'completed' },
  ]);
});
