import {
  Global,
  Injectable,
  Module,
  type INestApplicationContext,
  type OnApplicationBootstrap,
  type OnModuleInit,
  type Type,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { InjectDataSource, TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadConfigError,
  BildadJob,
  BildadModule,
  JobEngineService,
  JobNotAvailableError,
  JobsService,
} from 'nestjs-bildad';
import { DataSource } from 'typeorm';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bootApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';

// The engine claims nothing before all startup hooks of all modules have resolved, or before
// start().

const log: string[] = [];

@BildadJob({ code: 'EARLY' })
class EarlyJob {
  runJob() {
    log.push('job');
  }
}

let database: TestDatabase;
beforeEach(async () => {
  log.length = 0;
  database = await createDatabase();
  const before = await bootApp({ providers: [EarlyJob], database });
  await before.engine.enqueueJob(EarlyJob, {});
  await before.close();
});
afterEach(() => database.drop());

/** Enough time for a dozen passes of a running engine. */
async function runSlowHook(source: DataSource, name: string): Promise<void> {
  for (let pass = 0; pass < 12; pass++) await source.query('SELECT 1');
  log.push(name);
}

function createSlowProvider(name: string): Type {
  @Injectable()
  class Slow implements OnModuleInit, OnApplicationBootstrap {
    constructor(@InjectDataSource() private readonly source: DataSource) {}

    onModuleInit() {
      return runSlowHook(this.source, `${name} init`);
    }

    onApplicationBootstrap() {
      return runSlowHook(this.source, `${name} bootstrap`);
    }
  }
  return Slow;
}

/**
 * An app with hooks in the root module, beside and below the Bildad module, and in a global
 * module.
 */
function appModule(options: object = {}): Type {
  @Module({ providers: [createSlowProvider('deeper')] })
  class Deeper {}
  @Module({ imports: [Deeper], providers: [createSlowProvider('sibling')] })
  class Sibling {}
  @Global()
  @Module({ providers: [createSlowProvider('global')] })
  class GlobalModule {}
  @Module({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: database.url,
        autoLoadEntities: true,
        retryAttempts: 0,
      }),
      BildadModule.forRoot({ tickInterval: 10, ...options }),
      Sibling,
      GlobalModule,
    ],
    providers: [EarlyJob, createSlowProvider('root')],
  })
  class AppModule {
    constructor(@InjectDataSource() private readonly source: DataSource) {}

    onApplicationBootstrap() {
      return runSlowHook(this.source, 'AppModule bootstrap');
    }
  }
  return AppModule;
}

const NO_LOGS = { logger: false, abortOnError: false } as const;
const FORMS: Record<string, (module: Type) => Promise<INestApplicationContext>> = {
  'createApplicationContext()': (module) => NestFactory.createApplicationContext(module, NO_LOGS),
  'init() with Express': async (module) => (await NestFactory.create(module, NO_LOGS)).init(),
  'listen() with Fastify': async (module) => {
    const app = await NestFactory.create(module, new FastifyAdapter(), NO_LOGS);
    await app.listen(0, '127.0.0.1');
    return app;
  },
};

it.each(
  Object.entries(FORMS).flatMap(([how, boot]) => [
    { how, boot, where: 'a global module', options: {} },
    { how, boot, where: 'a module', options: { isGlobal: false } },
  ]),
)('$how: Bildad in $where claims after all hooks', async ({ boot, options }) => {
  const app = await boot(appModule(options));
  try {
    await expect.poll(() => log.at(-1)).toBe('job');
    expect(log.filter((what) => what === 'job')).toHaveLength(1);
    expect(log.slice(0, -1).toSorted()).toEqual(
      [
        'AppModule bootstrap',
        ...['deeper', 'global', 'root', 'sibling'].flatMap((name) => [
          `${name} bootstrap`,
          `${name} init`,
        ]),
      ].toSorted(),
    );
  } finally {
    await app.close();
  }
});

it('a job enqueued in a hook runs when the app is ready, and enqueueAndRunJob is rejected before', async () => {
  const refused: unknown[] = [];
  @Injectable()
  class Hooked {
    constructor(
      private readonly engine: JobEngineService,
      private readonly jobs: JobsService,
    ) {}

    async onApplicationBootstrap() {
      const entry = await this.engine.enqueueJob(SimpleJob, { say: 'hello' });
      await this.engine.runJob(entry).catch((error) => refused.push(error));
      await this.engine.enqueueAndRunJob(SimpleJob, {}).catch((error) => refused.push(error));
      expect((await this.engine.runJobEngine()).start).toEqual([]);
      // The rejected calls enqueued nothing: the first job and this one are in the queue.
      expect(await this.jobs.getNumberOfJobsInTheQueue()).toBe(2);
      this.identifier = entry.jobRunIdentifier;
    }

    identifier = '';
  }
  const bildad = await bootApp({
    providers: [Hooked, SimpleJob],
    options: { tickInterval: 10 },
    database,
  });
  try {
    for (const error of refused)
      expect(error).toMatchObject({
        constructor: JobNotAvailableError,
        why: 'the engine of this node has not started yet',
      });
    expect(refused).toHaveLength(2);
    expect((await bildad.engine.waitForJob(bildad.app.get(Hooked).identifier)).output).toBe(
      'hello',
    );
  } finally {
    await bildad.close();
  }
});

it('with autoStart: false the engine claims from start() on', async () => {
  const bildad = await bootApp({
    providers: [EarlyJob],
    options: { tickInterval: 10, autoStart: false },
    database,
  });
  try {
    const { engine, jobs, dataSource } = bildad;
    await runSlowHook(dataSource, 'held');
    expect((await engine.runJobEngine()).start).toEqual([]);
    expect(await jobs.listNodes()).toMatchObject([{ endReason: 'shutdown' }]);
    expect(log).toEqual(['held']);
    await Promise.all([engine.start(), engine.start()]);
    await expect.poll(() => log).toEqual(['held', 'job']);
    await engine.start();
    expect(await jobs.listNodes()).toHaveLength(2);
  } finally {
    await bildad.close();
  }
  // A second start() has no effect.
  await bildad.engine.start();
});

it('start() is rejected before the app has started', async () => {
  let refused: unknown;
  @Injectable()
  class StartsInHook {
    constructor(private readonly engine: JobEngineService) {
      this.done = this.engine.start().catch((error) => (refused = error));
    }

    done: Promise<unknown>;
  }
  const bildad = await bootApp({ providers: [StartsInHook], database });
  expect(refused).toMatchObject({
    constructor: BildadConfigError,
    field: 'start()',
  });
  await bildad.close();
});

it('hooks may run twice, as in a hybrid app with deferred microservices', async () => {
  const { app, engine } = await bootApp({
    providers: [EarlyJob],
    options: { tickInterval: 10 },
    database,
  });
  const hooks = app as unknown as {
    callInitHook(): Promise<void>;
    callBootstrapHook(): Promise<void>;
  };
  await hooks.callInitHook();
  await hooks.callBootstrapHook();
  const { jobRunIdentifier } = await engine.enqueueJob(EarlyJob, {});
  await engine.waitForJob(jobRunIdentifier);
  await expect.poll(() => log).toEqual(['job', 'job']);
  await app.close();
});

it('an app can be closed while its engine starts', async () => {
  const { app, engine, jobs } = await bootApp({
    providers: [EarlyJob],
    options: { tickInterval: 10, autoStart: false },
    database,
  });
  const nodes = await jobs.listNodes();
  const starting = engine.start();
  await app.close();
  await starting;
  expect(log).toEqual([]);
  expect(await database.sql('SELECT 1 FROM bildad.job_nodes WHERE end_reason IS NULL')).toEqual([]);
  expect(nodes).toHaveLength(1);
});

it('an app can be closed without a started engine', async () => {
  const bildad = await bootApp({
    providers: [EarlyJob],
    options: { autoStart: false },
    database,
  });
  await bildad.engine.enqueueJob(EarlyJob, {});
  await bildad.close();
  expect(log).toEqual([]);
});

it('an app whose boot fails runs no job, and no connection of the engine keeps its process alive', async () => {
  @Injectable()
  class Failing {
    constructor(@InjectDataSource() private readonly source: DataSource) {}

    async onApplicationBootstrap() {
      await runSlowHook(this.source, 'failing');
      await this.source.destroy();
      throw new Error('no Redis');
    }
  }
  await expect(
    bootApp({
      providers: [EarlyJob, Failing],
      options: { tickInterval: 10 },
      database,
    }),
  ).rejects.toThrow('no Redis');
  expect(log).toEqual(['failing']);
});

it('an engine that fails to start keeps the other engine from running', async () => {
  const engineOf = (name: string, isolation?: object) =>
    BildadModule.forRoot({
      name,
      schema: name,
      isGlobal: false,
      tickInterval: 10,
      ...(isolation && { isolation: isolation as never }),
    });
  @BildadJob({ code: 'ISOLATED', engine: 'second', isolation: 'thread' })
  class IsolatedJob {
    runJob() {}
  }
  await expect(
    bootApp({
      database,
      providers: [IsolatedJob],
      imports: [
        engineOf('first'),
        engineOf('second', {
          module: import.meta.url.replace('start.spec.ts', 'none.js'),
          export: 'None',
        }),
      ],
      options: { schema: 'third' },
    }),
  ).rejects.toMatchObject({ field: 'isolation.module' });
  await expect
    .poll(() =>
      database.sql(
        `SELECT end_reason FROM first.job_nodes UNION ALL SELECT end_reason FROM third.job_nodes`,
      ),
    )
    .toEqual([{ end_reason: 'shutdown' }, { end_reason: 'shutdown' }]);
});
