import 'reflect-metadata';
import { ClsModule } from 'nestjs-cls';
import { ClsPluginTransactional, TransactionHost } from '@nestjs-cls/transactional';
import { TransactionalAdapterTypeOrm } from '@nestjs-cls/transactional-adapter-typeorm';
import { getDataSourceToken } from '@nestjs/typeorm';
import {
  addTransactionalDataSource,
  initializeTransactionalContext,
  runInTransaction,
  StorageDriver,
} from 'typeorm-transactional';
import { Validate, ValidatorConstraint, type ValidatorConstraintInterface } from 'class-validator';
import { BildadJob, TransactionOverError } from 'nestjs-bildad';
import type { DataSource, EntityManager } from 'typeorm';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { gate, type Gate } from '../support/gate.js';
import { SimpleJob } from '../support/handlers.js';

let checking: Gate;

@ValidatorConstraint({ async: true })
class WhenOpened implements ValidatorConstraintInterface {
  async validate(): Promise<boolean> {
    await checking.opened;
    return true;
  }
}

class SlowContext {
  @Validate(WhenOpened) say!: string;
}

@BildadJob({ code: 'SLOWLY_CHECKED', context: SlowContext })
class SlowlyCheckedJob {
  async runJob(_context: SlowContext): Promise<void> {}
}

// A call that is made in a transaction is part of it, whoever opened it: nothing is there before the commit, and nobody
// is woken; after a rollback nothing ever was.

let bildad: TestApp;
let clsHost: TransactionHost<TransactionalAdapterTypeOrm>;
let managerOfCls: (() => EntityManager | undefined) | undefined;
/** While its tests run. */
let byTypeorm = false;
let patched: DataSource | undefined;
beforeAll(async () => {
  initializeTransactionalContext({
    storageDriver: StorageDriver.ASYNC_LOCAL_STORAGE,
  });
  bildad = await bootApp({
    providers: [SimpleJob, SlowlyCheckedJob],
    imports: [
      ClsModule.forRoot({
        global: true,
        plugins: [
          new ClsPluginTransactional({
            adapter: new TransactionalAdapterTypeOrm({
              dataSourceToken: getDataSourceToken(),
            }),
          }),
        ],
      }),
    ],
    options: {
      currentManager: () => (byTypeorm ? patched?.manager : managerOfCls?.()),
    },
  });
  clsHost = bildad.app.get(TransactionHost);
  managerOfCls = () => clsHost.tx;
});
afterEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries'));
afterAll(() => bildad.close());

const queued = () => bildad.jobs.getNumberOfJobsInTheQueue();
const add = () => bildad.engine.enqueueJob(SimpleJob, { say: 'hello' });

/** Ways to be in a transaction. */
const WAYS: Record<string, (work: () => Promise<unknown>) => Promise<unknown>> = {
  'bildad.transaction': (work) => bildad.engine.transaction(work),
  'bildad.transaction in another': (work) =>
    bildad.engine.transaction(() => bildad.engine.transaction(work)),
  'nestjs-cls': (work) => clsHost.withTransaction(work),
  'typeorm-transactional': async (work) => {
    patched ??= addTransactionalDataSource(bildad.dataSource);
    byTypeorm = true;
    try {
      return await runInTransaction(work);
    } finally {
      byTypeorm = false;
    }
  },
};

describe.each(Object.keys(WAYS))('%s', (way) => {
  const within = WAYS[way]!;

  it('commits what was enqueued, and wakes then', async () => {
    const notified: unknown[] = [];
    const off = await listening((message) => notified.push(message));
    await within(async () => {
      await add();
      await bildad.engine.enqueueJobs(SimpleJob, [{}, {}]);
      expect(await queuedOutside()).toBe(0);
      expect(notified).toEqual([]);
    });
    expect(await queued()).toBe(3);
    await expect.poll(() => notified.length).toBe(1);
    await off();
  });

  it('rolled back, there is nothing, and nobody is woken', async () => {
    const notified: unknown[] = [];
    const off = await listening((message) => notified.push(message));
    await expect(
      within(async () => {
        await add();
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(await queued()).toBe(0);
    // What comes after would not overtake it.
    await add();
    await expect.poll(() => notified.length).toBe(1);
    expect(await queued()).toBe(1);
    await off();
  });

  it('a change of a waiting job is part of it, of its own as well', async () => {
    const { engine } = bildad;
    const before = await add();
    await expect(
      within(async () => {
        const own = await add();
        for (const entry of [before, own])
          expect(
            await engine.updateJob(entry, {
              priority: 1,
              context: { say: 'x' },
            }),
          ).toMatchObject({ priority: 1 });
        await engine.rescheduleJob(own, '1h');
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(await bildad.jobs.listAllJobsInTheQueue()).toMatchObject([
      { id: before.id, priority: before.priority },
    ]);
  });

  it('manager: null is outside of it', async () => {
    await expect(
      within(async () => {
        await bildad.engine.enqueueJob(SimpleJob, {}, { manager: null });
        await bildad.engine.enqueueJobs(SimpleJob, [{}], { manager: null });
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(await queued()).toBe(2);
  });

  it('what would have to run before the commit is refused', async () => {
    await within(async () => {
      const refused = { code: 'BILDAD_CONFIG', field: 'manager' };
      await expect(bildad.engine.enqueueAndRunJob(SimpleJob, {})).rejects.toMatchObject(refused);
      await expect(bildad.engine.enqueueJobAndTriggerEngine(SimpleJob, {})).rejects.toMatchObject(
        refused,
      );
    });
    expect(await queued()).toBe(0);
  });
});

describe('a call that is under way when its transaction ends', () => {
  const hanging = () => bildad.engine.enqueueJob(SlowlyCheckedJob, { say: 'x' });
  const fails = async (work: () => Promise<unknown>) => expect(work()).rejects.toThrow('no');

  it.each<[string, (calls: Promise<unknown>[]) => Promise<unknown>]>([
    [
      'bildad.transaction',
      (calls) =>
        bildad.engine.transaction(async () => {
          calls.push(hanging());
          throw new Error('no');
        }),
    ],
    [
      'a savepoint',
      (calls) =>
        bildad.engine.transaction(async () => {
          await bildad.engine.transaction(async () => {
            calls.push(hanging());
            throw new Error('no');
          });
        }),
    ],
    [
      'one that was given',
      (calls) =>
        bildad.dataSource.transaction(async (manager) => {
          calls.push(
            bildad.engine.enqueueJob(
              SlowlyCheckedJob,
              { say: 'x' },
              { manager, unique: { key: 'x' } },
            ),
          );
          throw new Error('no');
        }),
    ],
    [
      'many of one that was given',
      (calls) =>
        bildad.dataSource.transaction(async (manager) => {
          calls.push(
            bildad.engine.enqueueJobs(SlowlyCheckedJob, [{ say: 'x' }], {
              manager,
            }),
          );
          throw new Error('no');
        }),
    ],
  ])('%s: leaves no job, and says so', async (_what, begin) => {
    const calls: Promise<unknown>[] = [];
    checking = gate();
    await fails(() => begin(calls));
    checking.open();
    await expect(calls[0]).rejects.toThrow(TransactionOverError);
    expect(await queued()).toBe(0);
  });
});

it('many at once in a transaction do not undo one another', async () => {
  const { engine } = bildad;
  await engine.transaction(() =>
    Promise.all([
      engine.enqueueJobs(SimpleJob, [{}, {}]),
      engine.enqueueJobs(SimpleJob, [{}]),
      add(),
    ]),
  );
  expect(await queued()).toBe(4);
});

it('a savepoint that is rolled back takes its jobs along, and no others', async () => {
  const { engine } = bildad;
  await engine.transaction(async () => {
    await add();
    await expect(
      engine.transaction(async () => {
        await add();
        throw new Error('the inner one');
      }),
    ).rejects.toThrow('the inner one');
    await add();
  });
  expect(await queued()).toBe(2);
});

it('two at once do not mix', async () => {
  const { engine } = bildad;
  const second = gate();
  const first = engine.transaction(async () => {
    await add();
    await second.opened;
    await add();
  });
  await expect(
    engine.transaction(async () => {
      await add();
      second.open();
      throw new Error('the second');
    }),
  ).rejects.toThrow('the second');
  await first;
  expect(await queued()).toBe(2);
});

it('who comes after the end is told so, and may go outside', async () => {
  const { engine } = bildad;
  const over = gate();
  let late: Promise<unknown> | undefined;
  let outside: Promise<unknown> | undefined;
  await engine.transaction(async () => {
    late = over.opened.then(add);
    outside = over.opened.then(() => engine.enqueueJob(SimpleJob, {}, { manager: null }));
    outside.catch(() => undefined);
    late.catch(() => undefined);
    await Promise.resolve();
  });
  over.open();
  await expect(late).rejects.toBeInstanceOf(TransactionOverError);
  await outside;
  expect(await queued()).toBe(1);
});

it('a job that is started from within a transaction is not part of it', async () => {
  const { engine, next } = bildad;
  const entry = await add();
  await engine
    .transaction(async () => {
      const finished = next('run.finished');
      await engine.runJob(entry);
      await finished;
      throw new Error('rolled back');
    })
    .catch(() => undefined);
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    output: 'hello',
  });
});

it('refuses what is no manager', async () => {
  const { engine } = bildad;
  await expect(
    engine.enqueueJob(SimpleJob, {}, { manager: {} as EntityManager }),
  ).rejects.toMatchObject({ code: 'BILDAD_CONFIG', field: 'manager' });
  expect(await queued()).toBe(0);
});

const queuedOutside = async () => {
  const [row] = await bildad.database.sql<{ n: number }>(
    'SELECT count(*)::int AS n FROM bildad.job_queue_entries',
  );
  return row!.n;
};

/** Wake-ups of other nodes. */
async function listening(receive: (message: unknown) => void) {
  const { default: pg } = await import('pg');
  const client = new pg.Client({ connectionString: bildad.database.url });
  await client.connect();
  client.on('notification', (message) => {
    if (message.payload?.includes('"due"')) receive(message);
  });
  await client.query('LISTEN "nestjs_bildad:bildad"');
  return () => client.end();
}
