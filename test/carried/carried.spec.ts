import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import {
  BildadJob,
  CarriedContextError,
  JobEngineService,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { once } from '../support/once.js';

// What a job was enqueued in is there again while it runs.

interface Store {
  tenant?: unknown;
  note?: unknown;
}
const als = new AsyncLocalStorage<Store>();

let restoring: (
  value: unknown,
  next: () => Promise<void>,
) => unknown;
const plainly = (tenant: unknown, next: () => Promise<void>) =>
  als.run(tenant === undefined ? {} : { tenant }, next);
beforeEach(() => {
  restoring = plainly;
});

interface Saw {
  tenant: unknown;
  note: unknown;
  context: object;
}
let saw: Saw[] = [];
afterEach(() => {
  saw = [];
});

class Recording implements JobHandler<object> {
  runJob(context: object, _job: JobExecution): unknown {
    const { tenant, note } = als.getStore() ?? {};
    saw.push({ tenant, note, context });
    if ('fail' in context) throw new RangeError('told to');
    return tenant;
  }
}

@BildadJob({ code: 'CARRIES', maxRetries: 1 })
class CarriesJob extends Recording {}

@BildadJob({ code: 'CARRIES_SECRETLY', maxRetries: 1, encrypt: true })
class SecretJob extends Recording {}

@BildadJob({ code: 'ENQUEUES', maxRetries: 0, transactional: true })
class EnqueuesJob extends Recording {
  constructor(private readonly engine: JobEngineService) {
    super();
  }

  override async runJob(): Promise<unknown> {
    return (await this.engine.enqueueJob(CarriesJob, {})).jobRunIdentifier;
  }
}

let bildad: TestApp;
let ops: TestApp;
beforeAll(async () => {
  const encryption = {
    keys: { k1: randomBytes(32).toString('base64') },
    current: 'k1',
  };
  const providers = [CarriesJob, SecretJob, EnqueuesJob];
  bildad = await bootApp({
    providers,
    options: {
      encryption,
      carry: {
        tenant: {
          capture: () => {
            const tenant = als.getStore()?.tenant;
            if (typeof tenant === 'function') return tenant() as unknown;
            return tenant;
          },
          restore: (value, next) => restoring(value, next),
        },
        note: {
          capture: () => als.getStore()?.note,
          restore: (note: unknown, next) => {
            const store = als.getStore();
            if (store && note !== undefined) store.note = note;
            return next();
          },
        },
      },
    },
  });
  // Knows nothing of what is carried.
  ops = await bootApp({
    database: bildad.database,
    providers,
    options: { encryption, role: 'producer' },
  });
});
afterAll(async () => {
  await ops.close();
  await bildad.close();
});

const inTenant = <T>(tenant: unknown, work: () => T, note?: unknown) =>
  als.run({ tenant, ...(note !== undefined && { note }) }, work);
const passes = async () => {
  while ((await bildad.engine.runJobEngine()).jobEngineResults.startedCount);
  await expect
    .poll(async () => (await bildad.jobs.listJobQueueEntries()).total ?? 0)
    .toBe(0);
};
const stored = async (identifier: string, table = 'job_queue_entry') => {
  const [row] = await bildad.sql<{ job_context: any }>(
    `SELECT job_context FROM bildad.${table} WHERE job_run_identifier = $1`,
    [identifier],
  );
  return row!.job_context as unknown;
};
