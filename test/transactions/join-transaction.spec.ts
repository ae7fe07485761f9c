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
class WaitsForGate implements ValidatorConstraintInterface {
  async validate(): Promise<boolean> {
    await checking.opened;
    return true;
  }
}

class SlowContext {
  @Validate(WaitsForGate) say!: string;
}

@BildadJob({ code: 'SLOWLY_CHECKED', context: SlowContext })
class SlowValidationJob {
  async runJob(_context: SlowContext): Promise<void> {}
}

// A call in a transaction is part of it, for every way to open one: the job is visible and wakes
// nodes only after the commit, and a rollback removes it.

let bildad: TestApp;
let clsHost: TransactionHost<TransactionalAdapterTypeOrm>;
let managerOfCls: (() => EntityManager | undefined) | undefined;
/** True while a test of typeorm-transactional runs. */
let byTypeorm = false;
let patched: DataSource | undefined;
beforeAll(async () => {
  initializeTransactionalContext({
    storageDriver: StorageDriver.ASYNC_LOCAL_STORAGE,
  });
  bildad = await bootApp({
    providers: [SimpleJob, SlowValidationJob],
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

  it('a commit makes the enqueued jobs visible and wakes nodes', async () => {
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

  it('a rollback removes the enqueued jobs and wakes no node', async () => {
    const notified: unknown[] = [];
    const off = await listening((message) => notified.push(message));
    await expect(
      within(async () => {
        await add();
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(await queued()).toBe(0);
    // A wake-up of the next job would not arrive before an earlier one.
    await add();
    await expect.poll(() => notified.length).toBe(1);
    expect(await queued()).toBe(1);
    await off();
  });

  it('a change of a waiting job is rolled back, for jobs enqueued before and inside the transaction', async () => {
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

  it('manager: null enqueues outside the transaction', async () => {
    await expect(
      within(async () => {
        await bildad.engine.enqueueJob(SimpleJob, {}, { manager: null });
        await bildad.engine.enqueueJobs(SimpleJob, [{}], { manager: null });
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(await queued()).toBe(2);
  });

  it('a call that must run its job before the commit is rejected', async () => {
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

describe('a call in progress when its transaction ends', () => {
  const hanging = () => bildad.engine.enqueueJob(SlowValidationJob, { say: 'x' });
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
      'a given manager',
      (calls) =>
        bildad.dataSource.transaction(async (manager) => {
          calls.push(
            bildad.engine.enqueueJob(
              SlowValidationJob,
              { say: 'x' },
              { manager, unique: { key: 'x' } },
            ),
          );
          throw new Error('no');
        }),
    ],
    [
      'enqueueJobs with a given manager',
      (calls) =>
        bildad.dataSource.transaction(async (manager) => {
          calls.push(
            bildad.engine.enqueueJobs(SlowValidationJob, [{ say: 'x' }], {
              manager,
            }),
          );
          throw new Error('no');
        }),
    ],
  ])('%s: the call enqueues no job and rejects', async (_what, begin) => {
    const calls: Promise<unknown>[] = [];
    checking = gate();
    await fails(() => begin(calls));
    checking.open();
    await expect(calls[0]).rejects.toThrow(TransactionOverError);
    expect(await queued()).toBe(0);
  });
});

it("concurrent calls in one transaction keep one another's jobs", async () => {
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

it('a rolled back savepoint removes only its own jobs', async () => {
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

it('concurrent transactions do not mix', async () => {
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

it('a call after the end of its transaction is rejected unless it opts out with manager: null', async () => {
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

it('a job started from within a transaction is not part of it', async () => {
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

it('a value that is not an EntityManager is rejected', async () => {
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

/** Receives the wake-ups for other nodes. */
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
