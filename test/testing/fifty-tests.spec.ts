import { Test, type TestingModule } from '@nestjs/testing';
import { getDataSourceToken } from '@nestjs/typeorm';
import { JobEngineService, JobsService } from 'nestjs-bildad';
import {
  BildadTesting,
  BildadTestingModule,
  closeTesting,
  createTestDatabase,
  type TestDatabase,
} from 'nestjs-bildad/testing';
import 'nestjs-bildad/testing/vitest';
import type { DataSource } from 'typeorm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AppModule, Mailer, MailJob, Order, OrderService, ShipJob } from './support/shop.js';

// Fifty tests of an app. Each runs in a transaction, none is slow, and nothing is left behind.

let database: TestDatabase;
let app: TestingModule;
let testing: BildadTesting;
let orders: OrderService;
let mailer: Mailer;
let engine: JobEngineService;
let jobs: JobsService;
let dataSource: DataSource;
const usedBefore = process.cpuUsage();

beforeAll(async () => {
  database = await createTestDatabase();
  app = await Test.createTestingModule({
    imports: [AppModule.on(database.url), BildadTestingModule.forRoot()],
  }).compile();
  await app.init();
  testing = app.get(BildadTesting);
  const any = { strict: false };
  orders = app.get(OrderService, any);
  mailer = app.get(Mailer, any);
  engine = app.get(JobEngineService, any);
  jobs = app.get(JobsService, any);
  dataSource = app.get<DataSource>(getDataSourceToken(), any);
});
afterAll(async () => {
  expect(await dataSource.getRepository(Order).count()).toBe(0);
  expect(await testing.enqueued()).toEqual([]);
  await closeTesting(app);
  await database.drop();
  const { user, system } = process.cpuUsage(usedBefore);
  // CPU time of this process. On an idle machine it is about the duration of the tests.
  expect((user + system) / 1_000).toBeLessThan(10_000);
});
beforeEach(async () => {
  mailer.sent.length = 0;
  mailer.failures = 0;
  await testing.begin();
});
afterEach(() => testing.rollback());

const PEOPLE = Array.from({ length: 10 }, (_, n) => `person${n}@example.com`);
const subjects = () => mailer.sent.map(({ subject }) => subject);

describe.each(PEOPLE)('an order of %s', (email) => {
  it('an order sends a mail at once and is shipped after an hour', async () => {
    const order = await orders.place(email);
    await expect(testing).toHaveEnqueued(MailJob, { to: email });
    await expect(testing).toHaveEnqueued(ShipJob, { orderId: order.id }, { priority: 3 });
    await testing.drain();
    expect(subjects()).toEqual(['thank you']);
    await testing.clock.advance('1h');
    await testing.drain();
    expect(subjects()).toEqual(['thank you', 'shipped']);
    expect(await orders.find(order.id)).toMatchObject({ status: 'shipped' });
  });

  it('a refused card leaves no order and no job', async () => {
    await expect(orders.place(email, { fail: true })).rejects.toThrow();
    await expect(testing).not.toHaveEnqueued(MailJob);
    expect(await orders.count()).toBe(0);
  });

  it('the mail is retried while the mail server is down', async () => {
    mailer.failures = 2;
    await orders.place(email);
    await testing.drain();
    await testing.clock.advance('10m');
    const [second] = await testing.drain();
    expect(second).toMatchObject({ outcome: 'failed', entry: 'reopened' });
    await testing.clock.advance('10m');
    await testing.drain();
    expect(subjects()).toEqual(['thank you']);
    const [entry] = await jobs.listAllJobsInTheQueue();
    expect(entry!.jobContext).toMatchObject({ orderId: expect.any(Number) });
  });

  it('a reminder is sent once', async () => {
    await orders.remind(email);
    await orders.remind(email);
    await expect(testing).toHaveEnqueuedTimes(MailJob, 1, { to: email });
    await testing.drain();
    await orders.remind(email);
    await testing.drain();
    expect(subjects()).toEqual(['do not forget', 'do not forget']);
  });

  it('a cancelled shipment does not happen', async () => {
    const order = await orders.place(email);
    const { removed } = await engine.cancelJobs({ job: ShipJob });
    expect(removed).toBe(1);
    await testing.clock.advance('1d');
    await testing.drain();
    expect(await orders.find(order.id)).toMatchObject({ status: 'new' });
  });
});
