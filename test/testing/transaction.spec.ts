import { Test, type TestingModule } from '@nestjs/testing';
import { getDataSourceToken } from '@nestjs/typeorm';
import { JobEngineService, JobsService } from 'nestjs-bildad';
import { BildadTesting, BildadTestingModule, TestLeakError } from 'nestjs-bildad/testing';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, Mailer, MailJob, Order, OrderService, ReportJob } from './support/shop.js';

// Everything that an app and its engine do between begin and rollback is in one transaction and is
// rolled back.

let database: TestDatabase;
let app: TestingModule;
let testing: BildadTesting;
let orders: OrderService;
let mailer: Mailer;
let engine: JobEngineService;
let dataSource: DataSource;

beforeAll(async () => {
  database = await createDatabase();
  app = await Test.createTestingModule({
    imports: [AppModule.on(database.url), BildadTestingModule.forRoot()],
  }).compile();
  await app.init();
  testing = app.get(BildadTesting);
  orders = app.get(OrderService, { strict: false });
  mailer = app.get(Mailer, { strict: false });
  engine = app.get(JobEngineService, { strict: false });
  dataSource = app.get<DataSource>(getDataSourceToken(), { strict: false });
});
afterAll(async () => {
  await app.close();
  await database.drop();
});

/** The rows that other connections see. */
const committed = async () => ({
  orders: await database.sql('SELECT * FROM "order"'),
  jobs: await database.sql('SELECT * FROM bildad.job_queue_entries'),
  runs: await database.sql('SELECT * FROM bildad.job_runs'),
});
const NOTHING = { orders: [], jobs: [], runs: [] };

it('repositories, transactions and jobs work in the transaction, and the rollback removes everything', async () => {
  await testing.inTransaction(async () => {
    const order = await orders.place('ada@example.com');
    await expect(orders.place('bob@example.com', { fail: true })).rejects.toThrow(
      'the card was refused',
    );
    expect(await orders.count()).toBe(1);
    const runs = await testing.drain({ withScheduled: true });
    expect(runs.map(({ code, outcome }) => `${code} ${outcome}`)).toEqual([
      'MAIL completed',
      'SHIP completed',
      'MAIL completed',
    ]);
    expect(await orders.find(order.id)).toMatchObject({ status: 'shipped' });
    expect(await committed()).toEqual(NOTHING);
  });
  expect(await orders.count()).toBe(0);
  expect(await testing.enqueued()).toEqual([]);
  expect(await committed()).toEqual(NOTHING);
});

it('a transactional job that fails leaves only its failure', async () => {
  await testing.inTransaction(async () => {
    const order = await orders.place('broken@example.com');
    await testing.drain();
    const [run] = await testing.drain({ withScheduled: true, limit: 10 });
    expect(run).toMatchObject({ code: 'SHIP', outcome: 'failed' });
    expect(run!.run.reason).toBe('no such street');
    expect(await orders.find(order.id)).toMatchObject({ status: 'new' });
    expect(await testing.drain()).toEqual([]);
  });
});

it('a failed statement does not affect other work', async () => {
  await testing.inTransaction(async () => {
    await orders.place('ada@example.com');
    await expect(dataSource.query('SELECT nothing')).rejects.toThrow(/nothing/);
    await expect(
      dataSource.transaction(async (manager) => {
        await manager.save(manager.create(Order, { email: 'x@example.com' }));
        await manager.transaction((inner) => inner.query('SELECT nothing')).catch(() => undefined);
        await manager.query('SELECT nothing_more');
      }),
    ).rejects.toThrow(/nothing_more/);
    expect(await orders.count()).toBe(1);
  });
});

it('concurrent transactions run one after another, and a failed one does not affect the others', async () => {
  await testing.inTransaction(async () => {
    const ends = await Promise.allSettled(
      Array.from({ length: 6 }, (_, n) => orders.place(`${n}@example.com`, { fail: n % 2 === 0 })),
    );
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(3);
    expect(await orders.count()).toBe(3);
    expect(await testing.drain()).toHaveLength(3);
  });
});

it('a transaction awaited inside another one is part of it', async () => {
  await testing.inTransaction(async () => {
    const email = 'ada@example.com';
    await dataSource.transaction(async (manager) => {
      await manager.save(manager.create(Order, { email }));
      await orders.place(email);
    });
    expect(await orders.count()).toBe(2);
    await expect(
      dataSource.transaction(async () => {
        await orders.place(email);
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(await orders.count()).toBe(2);
  });
});

it('keys, enqueueJobs, engine transactions and the history work in the transaction', async () => {
  await testing.inTransaction(async () => {
    const mail = { to: 'a@example.com', subject: 'x' };
    const first = await orders.remind('a@example.com');
    const again = await orders.remind('a@example.com');
    expect(again.id).toBe(first.id);
    await engine.enqueueJobs(MailJob, [mail, mail]);
    await engine.enqueueJob(MailJob, mail, { startBefore: '1h' });
    await engine
      .transaction(async () => {
        await engine.enqueueJob(MailJob, mail);
        throw new Error('no');
      })
      .catch(() => undefined);
    await engine.cancelJobs({ job: MailJob, priority: 9 });
    expect(await testing.drain()).toHaveLength(4);
    await expect(
      engine.enqueueJob(MailJob, mail, {
        jobRunIdentifier: first.jobRunIdentifier,
      }),
    ).rejects.toThrow(/already/);
    const jobs = app.get(JobsService, { strict: false });
    expect(await jobs.getNumberOfJobRuns()).toBe(4);
    expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
    const final = await engine.waitForJob(MailJob, first.jobRunIdentifier);
    expect(final.output).toMatch(/^mail /);
  });
  mailer.sent.length = 0;
});

it('a job that still runs at the rollback is stopped and reported', async () => {
  const begun = gate();
  ReportJob.begun = () => begun.open();
  await testing.begin();
  await engine.enqueueJob(ReportJob, {});
  const drained = testing.drain();
  await begun.opened;
  await expect(testing.rollback()).rejects.toThrow(TestLeakError);
  await drained;
  expect(await testing.leaks()).toEqual([]);
  expect(await committed()).toEqual(NOTHING);
  await testing.rollback();
});

it('a second begin() is rejected', async () => {
  await testing.begin();
  await expect(testing.begin()).rejects.toThrow(/^begin\(\) was called twice/);
  expect(await testing.leaks()).toEqual(['1 transaction of begin()']);
  await testing.rollback();
});

it('a connection taken before the rollback cannot be used after it', async () => {
  await testing.begin();
  const runner = dataSource.createQueryRunner();
  await runner.connect();
  await testing.rollback();
  await expect(runner.query('SELECT 1')).rejects.toThrow(/is over/);
  await runner.release();
});
