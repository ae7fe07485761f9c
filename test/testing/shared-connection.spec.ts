import { Injectable } from '@nestjs/common';
import { Test, type TestingModule } from '@nestjs/testing';
import { getDataSourceToken } from '@nestjs/typeorm';
import { BildadConfigError, BildadJob, JobEngineService, type JobHandler } from 'nestjs-bildad';
import { BildadTesting, BildadTestingModule } from 'nestjs-bildad/testing';
import type { PoolClient } from 'pg';
import { DataSource, type EntityManager } from 'typeorm';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, Order, OrderService, ReportJob } from './support/shop.js';

// Transactions of code under test, on the single connection of begin().

@Injectable()
@BildadJob({ code: 'ROLLING_BACK', maxRetries: 0 })
class RollingBackJob implements JobHandler<object> {
  constructor(private readonly dataSource: DataSource) {}

  async runJob() {
    await this.dataSource.transaction(async (manager) => {
      await manager.save(manager.create(Order, { email: 'undone' }));
      throw new Error('no such street');
    });
  }
}

let database: TestDatabase;
let app: TestingModule;
let testing: BildadTesting;
let orders: OrderService;
let engine: JobEngineService;
let dataSource: DataSource;

beforeAll(async () => {
  database = await createDatabase();
  app = await Test.createTestingModule({
    imports: [
      AppModule.on(database.url),
      { module: class Jobs {}, providers: [RollingBackJob] },
      BildadTestingModule.forRoot(),
    ],
  }).compile();
  await app.init();
  testing = app.get(BildadTesting);
  orders = app.get(OrderService, { strict: false });
  engine = app.get(JobEngineService, { strict: false });
  dataSource = app.get<DataSource>(getDataSourceToken(), { strict: false });
});
afterAll(async () => {
  await app.close();
  await database.drop();
});
beforeEach(() => testing.begin());
afterEach(() => testing.rollback());

const add = (email: string) => dataSource.getRepository(Order).save({ email });
const emails = async () => {
  const all = await dataSource.getRepository(Order).find({ order: { id: 'ASC' } });
  return all.map(({ email }) => email);
};

it('a job that rolls back a transaction does not delay the next pass', async () => {
  await orders.place('broken@example.com');
  await engine.enqueueJob(RollingBackJob, {});
  const since = performance.now();
  const runs = await testing.drain({ withScheduled: true });
  expect(runs.map(({ code, outcome }) => `${code} ${outcome}`)).toEqual([
    'MAIL completed',
    'ROLLING_BACK failed',
    'SHIP failed',
  ]);
  expect(performance.now() - since).toBeLessThan(5_000);
});

it('after a failed statement, its code can use another connection', async () => {
  const work = dataSource.transaction(async (manager) => {
    await manager.query('SELECT 1/0').catch(async (error: Error) => {
      await add('audit');
      await dataSource.transaction((own) => own.query('SELECT 1'));
      throw error;
    });
  });
  await expect(work).rejects.toThrow(/division by zero/);
});

it('a transaction with a failed statement rejects further statements and commits nothing', async () => {
  const runner = dataSource.createQueryRunner();
  await runner.startTransaction();
  await runner.manager.save(runner.manager.create(Order, { email: 'a' }));
  await expect(runner.query('SELECT 1/0')).rejects.toThrow();
  await expect(runner.query('SELECT 1')).rejects.toMatchObject({
    code: '25P02',
  });
  // TypeORM's savepoint fails too.
  await expect(runner.startTransaction()).rejects.toThrow(/aborted/);
  await runner.query('COMMIT');
  expect(await emails()).toEqual([]);
  await runner.release();
});

it('rolling back to its own savepoint repairs the transaction', async () => {
  await dataSource.transaction(async (manager) => {
    await manager.query('/* mine */ SAVEPOINT mine');
    await expect(manager.query('SELECT 1/0')).rejects.toThrow();
    await manager.query('ROLLBACK TO SAVEPOINT mine');
    await manager.save(manager.create(Order, { email: 'a' }));
  });
  const unknown = dataSource.transaction(async (manager) => {
    await manager.save(manager.create(Order, { email: 'b' }));
    await manager.query('RELEASE SAVEPOINT nobodys').catch(() => add('c'));
    await manager.query('SELECT 1');
  });
  await expect(unknown).rejects.toThrow(/aborted/);
  expect(await emails()).toEqual(['a']);
});

it('a failed transaction that is left open does not prevent the rollback', async () => {
  const runner = dataSource.createQueryRunner();
  await runner.startTransaction();
  await expect(runner.query('SELECT 1/0')).rejects.toThrow();
  await testing.rollback();
  await runner.release();
});

it("inTransaction rejects with the test's error, even when jobs still run", async () => {
  await testing.rollback();
  const begun = gate();
  ReportJob.begun = () => begun.open();
  const work = testing.inTransaction(async () => {
    await engine.runJob(await engine.enqueueJob(ReportJob, {}));
    await begun.opened;
    throw new Error('expected 1 to be 2');
  });
  await expect(work).rejects.toThrow('expected 1 to be 2');
  expect(await testing.leaks()).toEqual([]);
});

it('a query that mixes transaction statements with others is rejected', async () => {
  for (const text of [
    `BEGIN; INSERT INTO "order" (email) VALUES ('a'); COMMIT`,
    `INSERT INTO "order" (email) VALUES ('a'); COMMIT;`,
    `SELECT 1; /* all */ ROLLBACK`,
  ])
    await expect(dataSource.query(text)).rejects.toThrow(/query must not mix/);
  await dataSource.query(
    `DO $$ BEGIN INSERT INTO "order" (email) VALUES ('; COMMIT'); END $$; SELECT 1`,
  );
  await dataSource.query('SELECT 1; ROLLBACK TO x').catch(() => undefined);
  expect(await emails()).toEqual(['; COMMIT']);
});

it('a query stream, which would occupy the connection, is rejected and delays no other query', async () => {
  // The stream would occupy the connection until its reader has read the last row.
  const stream = { submit: () => null };
  const runner = dataSource.createQueryRunner();
  const client = (await runner.connect()) as PoolClient;
  expect(() => client.query(stream)).toThrow(BildadConfigError);
  await runner.release();
  await add('a');
  expect(await emails()).toEqual(['a']);
});

it('settings of a transaction end with it', async () => {
  const now = async () =>
    (await dataSource.query(
      `SELECT current_setting('app.tenant', true) AS tenant, current_setting('timezone') AS zone,
              current_user AS role, current_setting('lock_timeout') AS wait`,
    )) as unknown[];
  const before = await now();
  await dataSource.transaction(async (manager) => {
    await manager.query(`SELECT set_config('app.tenant', 'a', true)`);
    await dataSource.transaction(async (own) => {
      await own.query('SELECT set_config($1, $2, true)', ['app.tenant', 'b']);
    });
    expect(await now()).toMatchObject([{ tenant: 'a' }]);
    await manager.query(`SET LOCAL app.tenant TO 'c'`);
    await manager.query(`SET LOCAL TIME ZONE 'Asia/Tokyo'`);
    await manager.query('SET LOCAL lock_timeout TO 777');
    await manager.query('SET LOCAL ROLE pg_monitor');
    expect(await now()).toMatchObject([
      { tenant: 'c', zone: 'Asia/Tokyo', role: 'pg_monitor', wait: '777ms' },
    ]);
  });
  expect(await now()).toMatchObject([{ ...(before[0] as object), tenant: '' }]);
});

/**
 * Starts a transaction, and a second one while the first is idle. The second fails when `done`
 * opens.
 */
function overlappingTransactions(meanwhile: (first: EntityManager) => Promise<void>) {
  const [begun, done] = [gate(), gate()];
  let second: Promise<void> = Promise.resolve();
  const first = dataSource.transaction(async (manager) => {
    await manager.save(manager.create(Order, { email: 'a1' }));
    second = dataSource.transaction(async (other) => {
      await other.save(other.create(Order, { email: 'b' }));
      begun.open();
      await done.opened;
      throw new Error('no');
    });
    second.catch(() => undefined);
    await begun.opened;
    await meanwhile(manager);
  });
  first.catch(() => undefined);
  return { first, second: () => second, done };
}

it('a transaction continues when the one begun in between is over', async () => {
  const { first, second, done } = overlappingTransactions(async (manager) => {
    const saved = manager.save(manager.create(Order, { email: 'a2' }));
    done.open();
    await saved;
  });
  await first;
  await expect(second()).rejects.toThrow('no');
  expect(await emails()).toEqual(['a1', 'a2']);
});

it('a transaction that continued inside another one reports its lost changes', async () => {
  const open = overlappingTransactions(async (manager) => {
    await manager.save(manager.create(Order, { email: 'a2' }));
    open.done.open();
    await open.second().catch(() => undefined);
  });
  await expect(open.first).rejects.toThrow(/went on while another one/);
  const late = overlappingTransactions(async (manager) => {
    await manager.save(manager.create(Order, { email: 'a2' }));
  });
  await late.first;
  late.done.open();
  await expect(late.second()).rejects.toThrow('no');
  await expect(testing.rollback()).rejects.toThrow(/went on while another one/);
  expect(await testing.leaks()).toEqual([]);
});
