import { Injectable, Module, type Type } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadJob, BildadModule, JobEngineService } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { QUIET } from '../support/host.js';

// Two engines of one app on two databases. Each has its own DataSource, and a factory provides its
// options.

let orders: TestDatabase;
let reports: TestDatabase;
beforeAll(async () => {
  [orders, reports] = await Promise.all([createEmptyDatabase(), createEmptyDatabase()]);
});
afterAll(() => Promise.all([orders.drop(), reports.drop()]));

@BildadJob({ code: 'WORK', engine: 'orders' })
class OrderJob {
  runJob() {
    return 'ordered';
  }
}

@BildadJob({ code: 'WORK', engine: 'reports' })
class ReportJob {
  runJob() {
    return 'reported';
  }
}

@Injectable()
class Orders {
  constructor(readonly engine: JobEngineService) {}
}

@Injectable()
class Reports {
  constructor(readonly engine: JobEngineService) {}
}

const dataSource = (name: string, { url }: TestDatabase) =>
  TypeOrmModule.forRootAsync({
    name,
    useFactory: () => ({
      type: 'postgres' as const,
      url,
      autoLoadEntities: true,
      retryAttempts: 0,
    }),
  });
const engine = (name: string, source: string) =>
  BildadModule.forRootAsync({
    dataSource: source,
    isGlobal: false,
    useFactory: () => Promise.resolve({ ...QUIET, name }),
  });

function appModule(): Type {
  @Module({
    imports: [engine('orders', 'default')],
    providers: [Orders, OrderJob],
  })
  class OrdersModule {}
  @Module({
    imports: [engine('reports', 'second')],
    providers: [Reports, ReportJob],
  })
  class ReportsModule {}
  @Module({
    imports: [
      OrdersModule,
      dataSource('default', orders),
      ReportsModule,
      dataSource('second', reports),
    ],
  })
  class AppModule {}
  return AppModule;
}

it('each engine works on its own database, and both are closed', async () => {
  const app = await NestFactory.create(appModule(), new FastifyAdapter(), {
    logger: false,
    abortOnError: false,
  });
  await app.init();
  const run = async (office: Orders | Reports) => {
    const { jobRunIdentifier } = await office.engine.enqueueAndRunJob('WORK', {});
    return (await office.engine.waitForJob(jobRunIdentifier)).output;
  };
  expect(await run(app.get(Orders, { strict: false }))).toBe('ordered');
  expect(await run(app.get(Reports, { strict: false }))).toBe('reported');
  await app.close();
  for (const [database, output] of [
    [orders, 'ordered'],
    [reports, 'reported'],
  ] as const) {
    expect(await database.sql('SELECT output FROM bildad.job_runs')).toEqual([{ output }]);
    expect(await database.sql('SELECT end_reason FROM bildad.job_nodes')).toEqual([
      { end_reason: 'shutdown' },
    ]);
  }
});
