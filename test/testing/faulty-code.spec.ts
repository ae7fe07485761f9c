import { Test, type TestingModule } from '@nestjs/testing';
import { getDataSourceToken } from '@nestjs/typeorm';
import { BildadJob, JobEngineService, type JobExecution, type JobHandler } from 'nestjs-bildad';
import { BildadTesting, BildadTestingModule } from 'nestjs-bildad/testing';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, MailJob, Mailer, Order, OrderService } from './support/shop.js';

// Unusual and faulty code in an app under test.

/** Runs the function that the test sets. */
@BildadJob({ code: 'WORK', maxRetries: 0 })
class WorkJob implements JobHandler<object> {
  static work: (job: JobExecution) => unknown;

  runJob(_context: object, job: JobExecution) {
    return WorkJob.work(job);
  }
}

@BildadJob({
  code: 'TX',
  maxRetries: 0,
  transactional: { isolation: 'SERIALIZABLE' },
})
class TxJob extends WorkJob {}

let database: TestDatabase;
let app: TestingModule;
let testing: BildadTesting;
let engine: JobEngineService;
let dataSource: DataSource;

async function boot(mode: 'manual' | 'inline' = 'manual') {
  app = await Test.createTestingModule({
    imports: [AppModule.on(database.url), BildadTestingModule.forRoot({ mode })],
    providers: [WorkJob, TxJob],
  }).compile();
  await app.init();
  testing = app.get(BildadTesting);
  engine = app.get(JobEngineService, { strict: false });
  dataSource = app.get<DataSource>(getDataSourceToken(), { strict: false });
}
const run = async (job: typeof WorkJob, work: typeof WorkJob.work) => {
  WorkJob.work = work;
  await engine.enqueueJob(job, {});
  const [ended] = await testing.drain();
  return ended!;
};

describe('manual mode, in a transaction', () => {
  beforeAll(async () => {
    database = await createDatabase();
    await boot();
  });
  afterAll(async () => {
    await app.close();
    await database.drop();
  });
  const inTransaction = (name: string, work: () => Promise<void>) =>
    it(name, () => testing.inTransaction(work));

  inTransaction(
    'a transactional job with another isolation level completes, and its settings end with its transaction',
    async () => {
      const ended = await run(TxJob, async ({ manager }) => {
        await manager.save(manager.create(Order, { email: 'a@example.com' }));
        await manager.transaction((inner) =>
          inner.save(inner.create(Order, { email: 'b@example.com' })),
        );
        return manager.count(Order);
      });
      expect(ended).toMatchObject({ outcome: 'completed', run: { output: 2 } });
      // The transaction's timeouts ended with it.
      const [settings] = await dataSource.query(
        `SELECT current_setting('statement_timeout') AS statement, current_setting('bildad.run', true) AS run`,
      );
      expect(settings).toEqual({ statement: '0', run: '' });
    },
  );

  inTransaction('a handler that ends its transaction itself fails', async () => {
    const ended = await run(TxJob, ({ manager }) => manager.query('COMMIT'));
    expect(ended).toMatchObject({ outcome: 'failed', entry: 'removed' });
    expect(ended.run.reason).toMatch(/job\.manager/);
  });

  inTransaction('a handler can complete its run in its own transaction', async () => {
    const ended = await run(WorkJob, (job) =>
      dataSource.transaction(async (manager) => {
        await manager.save(manager.create(Order, { email: 'a@example.com' }));
        await job.complete(manager, 'by hand');
      }),
    );
    expect(ended).toMatchObject({
      outcome: 'completed',
      run: { output: 'by hand' },
    });
    expect(await dataSource.getRepository(Order).count()).toBe(1);
  });

  inTransaction(
    'a failed statement in a transactional handler rolls back its enqueued jobs',
    async () => {
      const ended = await run(TxJob, async ({ manager }) => {
        await engine.enqueueJob(MailJob, { to: 'a@example.com', subject: 'x' });
        await manager.query('SELECT nothing');
      });
      expect(ended.run.reason).toMatch(/nothing/);
      expect(await testing.drain()).toEqual([]);
    },
  );

  inTransaction('large parameters and results that are not JSON work', async () => {
    const text = 'x'.repeat(2_000_000);
    const [row] = await dataSource.query('SELECT length($1) AS length', [text]);
    expect(row).toEqual({ length: 2_000_000 });
    const ended = await run(WorkJob, () => ({ circular: undefined, n: 1n }));
    expect(ended.outcome).toMatch(/completed|failed/);
  });

  inTransaction('a drain inside a job is rejected', async () => {
    const ended = await run(WorkJob, () => testing.drain());
    expect(ended.run.reason).toMatch(/^drain\(\) must be called by the test/);
  });

  inTransaction('concurrent drains return different runs', async () => {
    const open = gate();
    WorkJob.work = () => open.opened;
    await engine.enqueueJob(WorkJob, {});
    await engine.enqueueJob(WorkJob, {});
    const [one, two] = [testing.drain(), testing.drain()];
    open.open();
    expect((await one).length + (await two).length).toBe(2);
  });

  it('a test that throws is rolled back and rejects with its error', async () => {
    await expect(
      testing.inTransaction(async () => {
        await engine.enqueueJob(WorkJob, {});
        throw new Error('of the test');
      }),
    ).rejects.toThrow('of the test');
    expect(await testing.enqueued()).toEqual([]);
  });

  it('terminated connections fail only the running test', async () => {
    await testing.begin();
    await engine.enqueueJob(WorkJob, {});
    await database.sql(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'idle in transaction' AND pid <> pg_backend_pid()`,
    );
    await expect(dataSource.query('SELECT 1')).rejects.toThrow();
    await testing.rollback().catch(() => undefined);
    const ended = await run(WorkJob, () => 'again');
    expect(ended).toMatchObject({ outcome: 'completed' });
    await testing.clear();
  });
});

describe('inline mode, in a transaction', () => {
  beforeAll(async () => {
    database = await createDatabase();
    await boot('inline');
  });
  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  it('a job runs when its transaction commits, and not after a rollback', () =>
    testing.inTransaction(async () => {
      const orders = app.get(OrderService, { strict: false });
      const mailer = app.get(Mailer, { strict: false });
      await orders.place('a@example.com');
      expect(mailer.sent).toHaveLength(1);
      await orders.place('a@example.com', { fail: true }).catch(() => 0);
      expect(mailer.sent).toHaveLength(1);
      await engine.transaction(async () => {
        await orders.remind('b@example.com');
        expect(mailer.sent).toHaveLength(1);
      });
      expect(mailer.sent).toHaveLength(2);
    }));

  it('a job enqueued by a job runs after it', async () => {
    const order: string[] = [];
    WorkJob.work = async () => {
      WorkJob.work = () => void order.push('inner');
      await engine.enqueueJob(WorkJob, {});
      order.push('outer');
    };
    await testing.inTransaction(async () => {
      await engine.enqueueJob(WorkJob, {});
    });
    expect(order).toEqual(['outer', 'inner']);
  });
});
