import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  Global,
  Injectable,
  Module,
  type INestApplicationContext,
  type ModuleMetadata,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { getDataSourceToken, InjectRepository, TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadJob,
  BildadModule,
  JobConfig,
  JobEngineService,
  type BildadModuleOptions,
} from 'nestjs-bildad';
import { DataSource, type Repository } from 'typeorm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate, type Gate } from '../support/gate.js';
import { bootHost } from '../support/host.js';
import { SimpleJob } from '../support/handlers.js';

// A job's dependencies stay usable until the job has ended: the engine drains before every other
// shutdown hook runs.

const log: string[] = [];
let arrived: Gate;
let door: Gate;

/** A service that closes its connection on shutdown, as services of Redis or Prisma do. */
@Injectable()
class Cache {
  private connected = true;

  onModuleDestroy() {
    this.connected = false;
    log.push('cache closed');
  }

  get() {
    if (!this.connected) throw new Error('the cache is closed');
    return 'cached';
  }
}

@Injectable()
class LocalCache extends Cache {}

@Global()
@Module({ providers: [Cache], exports: [Cache] })
class CacheModule {}

@Module({ providers: [LocalCache], exports: [LocalCache] })
class LocalCacheModule {}

@BildadJob({ code: 'DRAINED', timeout: '1h' })
class DrainedJob {
  constructor(
    private readonly cache: Cache,
    private readonly local: LocalCache,
    private readonly engine: JobEngineService,
    @InjectRepository(JobConfig)
    private readonly configs: Repository<JobConfig>,
  ) {}

  async runJob() {
    arrived.open();
    await door.opened;
    await this.configs.find();
    await this.configs.manager.transaction(async (manager) => {
      await manager.query('SELECT 1');
      await this.engine.enqueueJob(SimpleJob, { say: 'joined' }, { manager });
    });
    await this.engine.enqueueJob(SimpleJob, { say: 'follow-up' });
    log.push('job');
    return [this.cache.get(), this.local.get()];
  }
}

/** Other providers can enqueue until the end of the shutdown. */
@Injectable()
class EnqueuesOnShutdown {
  constructor(private readonly engine: JobEngineService) {}

  onModuleDestroy = () => this.say('destroy');
  beforeApplicationShutdown = () => this.say('before');
  onApplicationShutdown = () => this.say('shutdown');

  private async say(say: string): Promise<void> {
    await this.engine.enqueueJob(SimpleJob, { say });
    log.push(say);
  }
}

@Module({
  imports: [LocalCacheModule],
  providers: [DrainedJob, EnqueuesOnShutdown, SimpleJob],
})
class JobsModule {}

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());
beforeEach(async () => {
  log.length = 0;
  arrived = gate();
  door = gate();
  await database.sql('DROP SCHEMA IF EXISTS bildad CASCADE');
});

const SLOW: BildadModuleOptions = {
  tickInterval: false,
  shutdown: { drainTimeout: '20s', killGracePeriod: 100 },
};
const typeorm = () =>
  TypeOrmModule.forRoot({
    type: 'postgres',
    url: database.url,
    autoLoadEntities: true,
    retryAttempts: 0,
  });
const forRoot = () => BildadModule.forRoot(SLOW);
const forRootAsync = () => BildadModule.forRootAsync({ useFactory: () => Promise.resolve(SLOW) });

const ORDERS: Record<string, () => ModuleMetadata['imports']> = {
  'TypeORM first': () => [typeorm(), forRoot(), CacheModule, JobsModule],
  'TypeORM last': () => [JobsModule, CacheModule, forRoot(), typeorm()],
  'forRootAsync first': () => [forRootAsync(), typeorm(), JobsModule, CacheModule],
};

async function boot(imports: ModuleMetadata['imports']): Promise<INestApplicationContext> {
  class AppModule {}
  return NestFactory.createApplicationContext(
    { module: AppModule, imports: imports! },
    { logger: false, abortOnError: false },
  );
}

it.each(Object.entries(ORDERS))(
  'the engine drains before other shutdown hooks: %s',
  async (_order, imports) => {
    const app = await boot(imports());
    const dataSource = app.get<DataSource>(getDataSourceToken());
    await app.get(JobEngineService).enqueueAndRunJob(DrainedJob, {});
    await arrived.opened;
    // Two concurrent calls of close() behave as one.
    const closed = Promise.all([app.close(), app.close()]);
    // Enough time for a hook that does not wait for the drain.
    for (let turn = 0; turn < 5; turn++) await database.sql('SELECT 1');
    expect(log).toEqual([]);
    door.open();
    await closed;
    await app.close();
    expect(dataSource.isInitialized).toBe(false);
    expect(log[0]).toBe('job');
    expect(await database.sql('SELECT result, reason, output FROM bildad.job_runs')).toEqual([
      { result: 'SUCCEEDED', reason: null, output: ['cached', 'cached'] },
    ]);
    const enqueued = (
      await database.sql<{ enqueued: string }>(
        "SELECT job_context->>'say' AS enqueued FROM bildad.job_queue_entries",
      )
    ).map((row) => row.enqueued);
    expect(new Set(enqueued)).toEqual(
      new Set(['joined', 'follow-up', 'destroy', 'before', 'shutdown']),
    );
  },
);

describe('two engines on one schema', () => {
  @BildadJob({ code: 'FIRST', engine: 'first' })
  class FirstJob {
    async runJob() {
      arrived.open();
      await door.opened;
      return 'first';
    }
  }
  @BildadJob({ code: 'SECOND', engine: 'second' })
  class SecondJob {
    runJob() {
      return 'second';
    }
  }
  const engineOf = (name: string) => BildadModule.forRoot({ ...SLOW, name, isGlobal: false });
  @Injectable()
  class First {
    constructor(readonly engine: JobEngineService) {}
  }
  @Injectable()
  class Second {
    constructor(readonly engine: JobEngineService) {}
  }
  @Module({ imports: [engineOf('first')], providers: [First, FirstJob] })
  class FirstModule {}
  @Module({ imports: [engineOf('second')], providers: [Second, SecondJob] })
  class SecondModule {}

  it('two engines run their own handlers and drain concurrently', async () => {
    const app = await bootHost({
      url: database.url,
      bildad: [],
      imports: [FirstModule, SecondModule],
    });
    const first = app.get(First, { strict: false }).engine;
    const second = app.get(Second, { strict: false }).engine;
    const { jobRunIdentifier } = await second.enqueueAndRunJob(SecondJob, {});
    expect(await first.waitForJob(jobRunIdentifier)).toMatchObject({
      output: 'second',
    });
    await expect(first.enqueueAndRunJob(SecondJob, {})).rejects.toMatchObject({
      code: 'JOB_HANDLER_NOT_FOUND',
    });
    await first.enqueueAndRunJob(FirstJob, {});
    await arrived.opened;
    const closed = app.close();
    // The second engine does not wait for the first engine's jobs.
    await expect
      .poll(() => database.sql('SELECT engine_name, end_reason FROM bildad.job_nodes ORDER BY 1'))
      .toEqual([
        { engine_name: 'first', end_reason: null },
        { engine_name: 'second', end_reason: 'shutdown' },
      ]);
    door.open();
    await closed;
    expect(await database.sql('SELECT output FROM bildad.job_runs ORDER BY output::text')).toEqual([
      { output: 'first' },
      { output: 'second' },
    ]);
  });
});

it('a process ends after its boot failed in a hook of the app', async () => {
  const database = await createDatabase();
  const script = fileURLToPath(new URL('../../dist/test/fixtures/failed-boot.js', import.meta.url));
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [script, database.url], {
      timeout: 10_000,
    });
    expect(stdout).toBe('of the app\n');
  } finally {
    await database.drop();
  }
});
