import { Injectable } from '@nestjs/common';
import { Test, type TestingModule } from '@nestjs/testing';
import { getDataSourceToken } from '@nestjs/typeorm';
import { BildadJob, JobEngineService, type JobHandler } from 'nestjs-bildad';
import { BildadTesting, BildadTestingModule } from 'nestjs-bildad/testing';
import { DataSource } from 'typeorm';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, Order, OrderService, ReportJob } from './support/shop.js';

// What code under test may do with its transactions, on the one connection of begin().

@Injectable()
@BildadJob({ code: 'UNDOES', maxRetries: 0 })
class UndoesJob implements JobHandler<object> {
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
      { module: class Jobs {}, providers: [UndoesJob] },
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
  const all = await dataSource
    .getRepository(Order)
    .find({ order: { id: 'ASC' } });
  return all.map(({ email }) => email);
};

it('a job that rolls back a transaction does not keep the next pass waiting', async () => {
  await orders.place('broken@example.com');
  await engine.enqueueJob(UndoesJob, {});
  const since = performance.now();
  const runs = await testing.drain({ withScheduled: true });
  expect(runs.map(({ code, outcome }) => `${code} ${outcome}`)).toEqual([
    'MAIL completed',
    'UNDOES failed',
    'SHIP failed',
  ]);
  expect(performance.now() - since).toBeLessThan(5_000);
});

it('after a statement that failed its code may use another connection', async () => {
  const work = dataSource.transaction(async (manager) => {
    await manager.query('SELECT 1/0').catch(async (error: Error) => {
      await add('audit');
      await dataSource.transaction((own) => own.query('SELECT 1'));
      throw error;
    });
  });
  await expect(work).rejects.toThrow(/division by zero/);
});

it('a transaction in which a statement failed takes no more, and commits nothing', async () => {
  const runner = dataSource.createQueryRunner();
  await runner.startTransaction();
  await runner.manager.save(runner.manager.create(Order, { email: 'a' }));
  await expect(runner.query('SELECT 1/0')).rejects.toThrow();
  await expect(runner.query('SELECT 1')).rejects.toMatchObject({
    code: '25P02',
  });
  // TypeORM's savepoint, too.
  await expect(runner.startTransaction()).rejects.toThrow(/aborted/);
  await runner.query('COMMIT');
  expect(await emails()).toEqual([]);
  await runner.release();
});

it('a savepoint of its own brings it back', async () => {
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

it('one that failed and was left open hinders no rollback', async () => {
  const runner = dataSource.createQueryRunner();
  await runner.startTransaction();
  await expect(runner.query('SELECT 1/0')).rejects.toThrow();
  await testing.rollback();
  await runner.release();
});

it('inTransaction throws what the test has thrown, whatever else it left', async () => {
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
