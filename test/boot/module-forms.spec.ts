import { Injectable, Module } from '@nestjs/common';
import {
  BildadConfigError,
  BildadModule,
  JobEngineService,
  JobHandlerNotFoundError,
  JobsService,
} from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootError, bootHost, QUIET, type HostOptions } from '../support/host.js';

// The ways to import the module, and the roles.

let database: TestDatabase;
beforeAll(async () => {
  database = await createEmptyDatabase();
});
afterAll(() => database.drop());

@Injectable()
class Reports {
  constructor(readonly engine: JobEngineService) {}

  async order(say: string): Promise<unknown> {
    const run = await this.engine.enqueueAndRunJob(SimpleJob, { say });
    return (await this.engine.waitForJob(run.jobRunIdentifier)).output;
  }
}

async function order(host: Omit<HostOptions, 'url'>): Promise<unknown> {
  const app = await bootHost({ url: database.url, ...host });
  try {
    return await app.get(Reports, { strict: false }).order('done');
  } finally {
    await app.close();
  }
}

@Module({ providers: [Reports, SimpleJob] })
class ReportsModule {}

describe('forRoot', () => {
  it('forRoot needs no options', async () => {
    expect(
      await order({
        bildad: [BildadModule.forRoot()],
        imports: [ReportsModule],
      }),
    ).toBe('done');
  });

  it('forRoot provides its services to all modules', async () => {
    expect(await order({ imports: [ReportsModule] })).toBe('done');
  });

  it('isGlobal: false provides the services only to importing modules', async () => {
    const local = BildadModule.forRoot({ ...QUIET, isGlobal: false });
    @Module({ imports: [local], providers: [Reports, SimpleJob] })
    class Importing {}
    expect(await order({ bildad: [], imports: [Importing] })).toBe('done');

    @Module({ providers: [Reports] })
    class NotImporting {}
    const error = await bootError({
      url: database.url,
      bildad: [local],
      imports: [NotImporting],
    });
    expect(error.message).toMatch(/resolve dependencies of the Reports/);
    expect(error.message).toMatch(/JobEngineService/);
  });
});

describe('forRootAsync', () => {
  @Injectable()
  class Config {
    readonly concurrency = 3;
    // The method name that ConfigurableModuleBuilder expects.
    create() {
      return { ...QUIET, concurrency: this.concurrency };
    }
  }
  @Module({ providers: [Config], exports: [Config] })
  class ConfigModule {}

  it('forRootAsync reads options from a factory with injected providers', async () => {
    expect(
      await order({
        bildad: [
          BildadModule.forRootAsync({
            imports: [ConfigModule],
            inject: [Config],
            useFactory: (config: Config) => ({
              ...QUIET,
              concurrency: config.concurrency,
            }),
          }),
        ],
        imports: [ReportsModule],
      }),
    ).toBe('done');
  });

  it('forRootAsync reads options from a class', async () => {
    expect(
      await order({
        bildad: [BildadModule.forRootAsync({ useClass: Config })],
        imports: [ReportsModule],
      }),
    ).toBe('done');
  });

  it('forRootAsync reads options from an existing provider', async () => {
    expect(
      await order({
        bildad: [
          BildadModule.forRootAsync({
            imports: [ConfigModule],
            useExisting: Config,
          }),
        ],
        imports: [ReportsModule],
      }),
    ).toBe('done');
  });

  it('forRootAsync takes the extras beside the factory', async () => {
    await order({
      bildad: [
        BildadModule.forRootAsync({
          schema: 'reports',
          useFactory: () => Promise.resolve(QUIET),
        }),
      ],
      imports: [ReportsModule],
    });
    expect(await database.sql('SELECT result FROM reports.job_runs')).toEqual([
      { result: 'SUCCEEDED' },
    ]);
  });

  it.each([
    ['a wrong value', { concurrency: 0 }, 'concurrency'],
    ['an unknown name', { concurency: 5 }, 'concurency'],
    ['an extra, which belongs beside the factory', { schema: 'x' }, 'schema'],
    ['text', 'fast', 'options'],
  ])('a factory that returns %s fails the boot', async (_what, options, field) => {
    const error = await bootError({
      url: database.url,
      bildad: [BildadModule.forRootAsync({ useFactory: () => options as object })],
    });
    expect(error).toMatchObject({ constructor: BildadConfigError, field });
  });

  it('an option beside the factory is rejected, because it would have no effect', () => {
    const misplaced = { useFactory: () => QUIET, concurrency: 5 };
    expect(() => BildadModule.forRootAsync(misplaced)).toThrow(
      /^concurrency is not an option\. Known options: imports, .* \(BildadModule\.forRootAsync\)$/,
    );
  });

  it('an error of the factory fails the boot', async () => {
    const error = await bootError({
      url: database.url,
      bildad: [
        BildadModule.forRootAsync({
          useFactory: () => Promise.reject(new Error('no vault')),
        }),
      ],
    });
    expect(error.message).toBe('no vault');
  });
});

describe('roles', () => {
  it('a producer enqueues and never runs a job', async () => {
    const app = await bootHost({
      url: database.url,
      providers: [SimpleJob],
      bildad: { role: 'producer', tickInterval: 10 },
    });
    const engine = app.get(JobEngineService);
    const entry = await engine.enqueueJob(SimpleJob, {});
    const { start } = await engine.runJobEngine();
    expect(start).toEqual([]);
    await expect(engine.runJob(entry)).rejects.toBeInstanceOf(JobHandlerNotFoundError);
    expect(
      await app.get(JobsService).getJobQueueEntryForIdentifier(entry.jobRunIdentifier),
    ).toMatchObject({ status: 'AVAILABLE', retry: 0 });
    await app.close();
  });

  it('a worker runs a job that a producer enqueued by its code', async () => {
    const producer = await bootHost({
      url: database.url,
      bildad: { role: 'producer' },
    });
    const worker = await bootHost({
      url: database.url,
      providers: [SimpleJob],
      bildad: { role: 'worker', tickInterval: 20 },
    });
    const entry = await producer.get(JobEngineService).enqueueJob('SIMPLE', { say: 'hello' });
    expect(
      await producer.get(JobEngineService).waitForJob(entry.jobRunIdentifier, { timeout: '10s' }),
    ).toMatchObject({ result: 'SUCCEEDED', output: 'hello' });
    await producer.close();
    await worker.close();
  });
});
