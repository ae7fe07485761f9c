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
import { gate } from '../support/gate.js';
import { runOnce } from '../support/run-once.js';

// Data captured at enqueue is restored while the job runs (the option `carry`).

interface Store {
  tenant?: unknown;
  note?: unknown;
}
const als = new AsyncLocalStorage<Store>();

let restore: (value: unknown, next: () => Promise<void>) => unknown;
const restoreTenant = (tenant: unknown, next: () => Promise<void>) =>
  als.run(tenant === undefined ? {} : { tenant }, next);
beforeEach(() => {
  restore = restoreTenant;
});

interface Recorded {
  tenant: unknown;
  note: unknown;
  context: object;
}
let recorded: Recorded[] = [];
afterEach(() => {
  recorded = [];
});

class RecordingJob implements JobHandler<object> {
  runJob(context: object, _job: JobExecution): unknown {
    const { tenant, note } = als.getStore() ?? {};
    recorded.push({ tenant, note, context });
    if ('fail' in context) throw new RangeError('reported to');
    return tenant;
  }
}

@BildadJob({ code: 'PROPAGATING', maxRetries: 1 })
class PropagatingJob extends RecordingJob {}

@BildadJob({ code: 'PROPAGATING_ENCRYPTED', maxRetries: 1, encrypt: true })
class SecretJob extends RecordingJob {}

@BildadJob({ code: 'ENQUEUES', maxRetries: 0, transactional: true })
class EnqueuesJob extends RecordingJob {
  constructor(private readonly engine: JobEngineService) {
    super();
  }

  override async runJob(): Promise<unknown> {
    return (await this.engine.enqueueJob(PropagatingJob, {})).jobRunIdentifier;
  }
}

let bildad: TestApp;
let otherApp: TestApp;
beforeAll(async () => {
  const encryption = {
    keys: { k1: randomBytes(32).toString('base64') },
    current: 'k1',
  };
  const providers = [PropagatingJob, SecretJob, EnqueuesJob];
  bildad = await bootApp({
    providers,
    options: {
      tickInterval: '50ms',
      encryption,
      carry: {
        tenant: {
          capture: () => {
            const tenant = als.getStore()?.tenant;
            if (typeof tenant === 'function') return (tenant as () => unknown)();
            return tenant;
          },
          restore: (value, next) => restore(value, next),
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
  // Does not have the option `carry`.
  otherApp = await bootApp({
    database: bildad.database,
    providers,
    options: { encryption, role: 'producer' },
  });
});
afterAll(async () => {
  await otherApp.close();
  await bildad.close();
});

const inTenant = <T>(tenant: unknown, work: () => T, note?: unknown) =>
  als.run({ tenant, ...(note !== undefined && { note }) }, work);

/** The context as stored. */
const stored = async ({ jobRunIdentifier }: { jobRunIdentifier: string }) => {
  const [row] = await bildad.sql<{ context: Record<string, any> }>(
    `SELECT job_context AS context FROM bildad.job_queue_entries WHERE job_run_identifier = $1
     UNION ALL SELECT job_context FROM bildad.job_runs WHERE job_run_identifier = $1 LIMIT 1`,
    [jobRunIdentifier],
  );
  return row!.context;
};
const ended = ({ jobRunIdentifier }: { jobRunIdentifier: string }) =>
  bildad.engine.waitForJob(jobRunIdentifier);

const LATER = { delay: '1h' } as const;
const outcomeIn = async (entry: { id: string; jobRunIdentifier: string }) => {
  await bildad.engine.rescheduleJob(entry, 0);
  return (await ended(entry)).output;
};

describe('capture', () => {
  it('enqueueJob stores the captured data, and handlers and entities do not show it', async () => {
    const entry = await inTenant('acme', () =>
      bildad.engine.enqueueJob(PropagatingJob, { n: 1 }, LATER),
    );
    expect(entry.jobContext).toEqual({ n: 1 });
    expect(await stored(entry)).toEqual({
      $bildad: { carried: { tenant: 'acme' } },
      value: { n: 1 },
    });
    expect(await outcomeIn(entry)).toBe('acme');
    expect(recorded).toEqual([{ tenant: 'acme', note: undefined, context: { n: 1 } }]);
    expect((await ended(entry)).jobContext).toEqual({ n: 1 });
  });

  it('nothing is stored when nothing was captured', async () => {
    const entry = await bildad.engine.enqueueJob(PropagatingJob, { n: 1 }, LATER);
    expect(await stored(entry)).toEqual({ n: 1 });
    expect(await outcomeIn(entry)).toBeNull();
  });

  it('the data is captured at the call, and later changes have no effect', async () => {
    const store: Store = { tenant: 'before' };
    const call = als.run(store, () => bildad.engine.enqueueJob(PropagatingJob, {}));
    store.tenant = 'behind';
    expect((await ended(await call)).output).toBe('before');
  });

  it('enqueueJobs captures the data, for lists and other iterables', async () => {
    const lists: Iterable<object>[] = [[{}, {}], new Set([{}, {}])];
    for (const contexts of lists) {
      const entries = await inTenant('bulk', () =>
        bildad.engine.enqueueJobs(PropagatingJob, contexts),
      );
      for (const entry of entries) expect((await ended(entry)).output).toBe('bulk');
    }
  });

  it('an enqueue in engine.transaction captures the data', async () => {
    const entry = await inTenant('inside', () =>
      bildad.engine.transaction(() => bildad.engine.enqueueJob(PropagatingJob, {})),
    );
    expect((await ended(entry)).output).toBe('inside');
  });

  it('a job that enqueues passes its own restored data on', async () => {
    const entry = await inTenant('parent', () => bildad.engine.enqueueJob(EnqueuesJob, {}));
    const child = (await ended(entry)).output as string;
    expect((await bildad.engine.waitForJob(child)).output).toBe('parent');
  });
});

describe('with a key', () => {
  const enqueueIn = (tenant: string, options: object) =>
    inTenant(tenant, () => bildad.engine.enqueueJob(PropagatingJob, { tenant }, options));

  it.each([
    ['unique, ignored', { unique: { key: 'ignore' }, ...LATER }, 'first'],
    ['unique, replaced', { unique: { key: 'replace', onConflict: 'replace' }, ...LATER }, 'second'],
    [
      'unique, rescheduled',
      { unique: { key: 'reschedule', onConflict: 'reschedule' }, ...LATER },
      'first',
    ],
    ['debounced', { debounce: { key: 'debounce', wait: '1h' } }, 'second'],
    ['throttled', { throttle: { key: 'throttle', every: '1h' }, ...LATER }, 'first'],
  ])(
    '%s: the context and the captured data come from the same call',
    async (_name, options, which) => {
      await enqueueIn('first', options);
      const entry = await enqueueIn('second', options);
      expect(await stored(entry)).toEqual({
        $bildad: { carried: { tenant: which } },
        value: { tenant: which },
      });
      expect(await outcomeIn(entry)).toBe(which);
    },
  );

  it('onConflict keepLatest: the context and the captured data come from the same call', async () => {
    const door = gate();
    const begun = gate();
    restore = async (value, next) => {
      restore = restoreTenant;
      begun.open();
      await door.opened;
      await restoreTenant(value, next);
    };
    const options = {
      unique: { key: 'latest', onConflict: 'keepLatest' },
    } as const;
    const first = await enqueueIn('first', options);
    await begun.opened;
    const second = await enqueueIn('second', options);
    door.open();
    expect((await ended(first)).output).toBe('first');
    expect((await ended(second)).output).toBe('second');
  });
});

describe('captured data is kept', () => {
  it('captured data is kept for automatic retries', async () => {
    const entry = await inTenant('acme', () =>
      bildad.engine.enqueueJob(PropagatingJob, { fail: true }),
    );
    expect((await ended(entry)).retry).toBe(1);
    expect(recorded.map(({ tenant }) => tenant)).toEqual(['acme', 'acme']);
  });

  it.each([PropagatingJob, SecretJob])(
    'captured data is kept when any app changes the context: %o',
    async (job) => {
      for (const app of [bildad, otherApp]) {
        const entry = await inTenant('acme', () => bildad.engine.enqueueJob(job, { n: 1 }, LATER));
        const changed = await inTenant('operator', () =>
          app.engine.updateJob(entry, { context: { n: 2 } }),
        );
        if (job === PropagatingJob) expect(changed.jobContext).toEqual({ n: 2 });
        await outcomeIn(entry);
        expect(recorded.at(-1)).toMatchObject({ tenant: 'acme', context: { n: 2 } });
      }
    },
  );

  it('changing the context of a job without captured data stores none', async () => {
    const entry = await bildad.engine.enqueueJob(PropagatingJob, { n: 1 }, LATER);
    await bildad.engine.updateJob(entry, { context: { n: 2 } });
    expect(await stored(entry)).toEqual({ n: 2 });
    await bildad.engine.cancelJob(entry);
  });

  it.each([PropagatingJob, SecretJob])(
    'captured data is kept when any app retries a finished job: %o',
    async (job) => {
      for (const app of [bildad, otherApp])
        for (const context of [undefined, { n: 3 }]) {
          const first = await inTenant('acme', () => bildad.engine.enqueueJob(job, { n: 1 }));
          const run = await ended(first);
          const again = await inTenant('operator', () =>
            app.engine.retryJob(run, context ? { context } : {}),
          );
          await ended(again);
          expect(recorded.at(-1)).toMatchObject({
            tenant: 'acme',
            context: context ?? { n: 1 },
          });
        }
      const none = await ended(await bildad.engine.enqueueJob(job, {}));
      const again = await inTenant('operator', () => bildad.engine.retryJob(none));
      await ended(again);
      expect(recorded.at(-1)!.tenant).toBeUndefined();
    },
  );
});

it('captured data is encrypted when the context is', async () => {
  const entry = await inTenant('acme-secret', () =>
    bildad.engine.enqueueJob(SecretJob, { n: 1 }, LATER),
  );
  const text = JSON.stringify(await stored(entry));
  expect(text).toContain('sealedCarried');
  expect(text).not.toContain('acme');
  expect(String(entry.jobContext)).toBe('[encrypted with k1]');
  await outcomeIn(entry);
  expect(recorded).toMatchObject([{ tenant: 'acme-secret', context: { n: 1 } }]);
});

describe('encrypted captured data', () => {
  const tampered = async (path: string, value: string) => {
    const entry = await inTenant('acme', () =>
      bildad.engine.enqueueJob(SecretJob, {}, { ...LATER, maxRetries: 0 }),
    );
    await bildad.sql(
      `UPDATE bildad.job_queue_entries SET job_context = jsonb_set(job_context, $2::text[], to_jsonb($3::text)) WHERE id = $1`,
      [entry.id, `{$bildad,sealedCarried,${path}}`, value],
    );
    return entry;
  };

  it('a job whose key is missing on this node is released', async () => {
    const entry = await tampered('key', 'k9');
    const released = bildad.next(
      'entry.released',
      (event) => event.jobRunIdentifier === entry.jobRunIdentifier,
    );
    await bildad.engine.rescheduleJob(entry, 0);
    expect((await released).error).toMatchObject({ keyId: 'k9' });
    await bildad.engine.removeJobFromQueue(entry);
    expect(recorded).toEqual([]);
  });

  it('a job whose encrypted data was changed fails', async () => {
    const entry = await tampered('sealed', 'AAAA');
    await bildad.engine.rescheduleJob(entry, 0);
    const run = await ended(entry);
    expect(run.result).toBe('FAILED');
    expect(run.reason).toContain('does not open a carried context');
    expect(recorded).toEqual([]);
  });
});

describe('a capture function', () => {
  const cyclic: Record<string, unknown> = {};
  cyclic['itself'] = cyclic;
  const refused = (tenant: unknown) =>
    inTenant(tenant, async () => {
      const counts = () => bildad.sql('SELECT count(*) FROM bildad.job_queue_entries');
      const before = await counts();
      const error: unknown = await bildad.engine
        .enqueueJob(PropagatingJob, {})
        .catch((thrown: unknown) => thrown);
      const many: unknown = await bildad.engine
        .enqueueJobs(PropagatingJob, [{}])
        .catch((thrown: unknown) => thrown);
      expect(await counts()).toEqual(before);
      for (const one of [error, many]) expect(one).toBeInstanceOf(CarriedContextError);
      return error as CarriedContextError;
    });

  it('a capture function that throws rejects the call with its error as the cause', async () => {
    const cause = new RangeError('no tenant');
    const error = await refused(() => {
      throw cause;
    });
    expect(error).toMatchObject({ carrier: 'tenant', cause });
    expect(error.message).toMatch(/^carry\.tenant: capture\(\) threw an error/);
  });

  it.each<[string, unknown, string]>([
    ['a captured promise', () => Promise.resolve('acme'), 'cannot be stored'],
    ['a captured bigint', 1n, 'cannot be stored'],
    ['captured text with NUL', 'a\0b', 'cannot be stored'],
    ['a captured cycle', cyclic, 'cannot be stored'],
    ['a captured Map', () => new Map(), 'cannot be stored'],
    ['captured data over the limit', 'x'.repeat(8_191), 'larger than 8192 bytes of JSON (carry)'],
  ])('%s rejects the call', async (_name, tenant, message) => {
    const error = await refused(tenant);
    expect(error.message).toContain(message);
    expect(error.message).not.toContain('acme');
  });

  it('a capture function can return any JSON value', async () => {
    for (const tenant of [null, 0, '', { a: [1, null] }, 'x'.repeat(8_190)]) {
      const entry = await inTenant(tenant, () => bildad.engine.enqueueJob(PropagatingJob, {}));
      await ended(entry);
      expect(recorded.at(-1)!.tenant).toEqual(tenant);
    }
  });
});

describe('a restore function', () => {
  const NO_RETRY = { maxRetries: 0 };

  it('restore is called without captured data, and shields the run from the data of the code that starts it', async () => {
    const { run } = await inTenant('whoever', () => runOnce(bildad, PropagatingJob, {}, NO_RETRY));
    expect(run.output).toBe('whoever');
    const values: unknown[] = [];
    restore = (value, next) => {
      values.push(value);
      return restoreTenant(value, next);
    };
    const entry = await bildad.engine.enqueueJob(PropagatingJob, {}, LATER);
    await inTenant('whoever', () => outcomeIn(entry));
    expect(values).toEqual([undefined]);
    expect(recorded.at(-1)!.tenant).toBeUndefined();
  });

  it('the first name is the outermost', async () => {
    const entry = await inTenant(
      'acme',
      () => bildad.engine.enqueueJob(PropagatingJob, {}),
      'a note',
    );
    await ended(entry);
    expect(recorded).toMatchObject([{ tenant: 'acme', note: 'a note' }]);
  });

  it.each<[string, typeof restore, string]>([
    [
      'throws',
      () => {
        throw new RangeError('no such tenant');
      },
      'RangeError',
    ],
    ['rejects', () => Promise.reject(new RangeError('no')), 'RangeError'],
    ['calls nothing', () => undefined, 'CarriedContextError'],
  ])('a restore function that %s fails the run', async (_name, does, errorName) => {
    restore = does;
    const { event } = await runOnce(bildad, PropagatingJob, {}, NO_RETRY);
    expect(event).toMatchObject({ outcome: 'failed', errorName });
    expect(recorded).toEqual([]);
  });

  it.each<[string, typeof restore]>([
    [
      'throws at the end',
      async (value, next) => {
        await restoreTenant(value, next);
        throw new RangeError('too late');
      },
    ],
    [
      'throws while it runs',
      (value, next) => {
        void restoreTenant(value, next);
        throw new RangeError('too late');
      },
    ],
  ])(
    'a restore function that %s does not change the outcome, and its error is reported',
    async (_name, does) => {
      restore = does;
      const reported = bildad.next('engine.error');
      const { event } = await inTenant('acme', () => runOnce(bildad, PropagatingJob, {}, NO_RETRY));
      expect(event.outcome).toBe('completed');
      expect(await reported).toMatchObject({
        doing: 'carry.tenant: restore(), after its run',
        error: { message: 'too late' },
      });
    },
  );

  it('calling next twice runs the job once, and a restore that does not await next runs it completely', async () => {
    restore = (value, next) =>
      restoreTenant(value, () => Promise.all([next(), next()]).then(() => {}));
    await runOnce(bildad, PropagatingJob, {}, NO_RETRY);
    expect(recorded).toHaveLength(1);
    restore = (value, next) => void restoreTenant(value, next);
    const { event } = await runOnce(bildad, PropagatingJob, {}, NO_RETRY);
    expect(event.outcome).toBe('completed');
  });

  it('calling next after restore has failed runs nothing', async () => {
    let late: () => Promise<void> = () => Promise.resolve();
    restore = (_value, next) => {
      late = next;
      throw new RangeError('no');
    };
    await runOnce(bildad, PropagatingJob, {}, NO_RETRY);
    await late();
    expect(recorded).toEqual([]);
  });
});
