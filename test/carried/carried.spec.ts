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

// What a job was enqueued in is there again while it runs.

interface Store {
  tenant?: unknown;
  note?: unknown;
}
const als = new AsyncLocalStorage<Store>();

let restoring: (value: unknown, next: () => Promise<void>) => unknown;
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
      tickInterval: '50ms',
      encryption,
      carry: {
        tenant: {
          capture: () => {
            const tenant = als.getStore()?.tenant;
            if (typeof tenant === 'function') return (tenant as () => unknown)();
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

/** As the database has it. */
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

describe('is captured by', () => {
  it('enqueueJob; handlers and entities do not show it', async () => {
    const entry = await inTenant('acme', () =>
      bildad.engine.enqueueJob(CarriesJob, { n: 1 }, LATER),
    );
    expect(entry.jobContext).toEqual({ n: 1 });
    expect(await stored(entry)).toEqual({
      $bildad: { carried: { tenant: 'acme' } },
      value: { n: 1 },
    });
    expect(await outcomeIn(entry)).toBe('acme');
    expect(saw).toEqual([{ tenant: 'acme', note: undefined, context: { n: 1 } }]);
    expect((await ended(entry)).jobContext).toEqual({ n: 1 });
  });

  it('not by what is enqueued in nothing', async () => {
    const entry = await bildad.engine.enqueueJob(CarriesJob, { n: 1 }, LATER);
    expect(await stored(entry)).toEqual({ n: 1 });
    expect(await outcomeIn(entry)).toBeNull();
  });

  it('the call, and not what comes behind it', async () => {
    const store: Store = { tenant: 'before' };
    const call = als.run(store, () => bildad.engine.enqueueJob(CarriesJob, {}));
    store.tenant = 'behind';
    expect((await ended(await call)).output).toBe('before');
  });

  it('enqueueJobs, also bit by bit', async () => {
    const lists: Iterable<object>[] = [[{}, {}], new Set([{}, {}])];
    for (const contexts of lists) {
      const entries = await inTenant('bulk', () => bildad.engine.enqueueJobs(CarriesJob, contexts));
      for (const entry of entries) expect((await ended(entry)).output).toBe('bulk');
    }
  });

  it('a transaction', async () => {
    const entry = await inTenant('inside', () =>
      bildad.engine.transaction(() => bildad.engine.enqueueJob(CarriesJob, {})),
    );
    expect((await ended(entry)).output).toBe('inside');
  });

  it('a job that enqueues, from its own', async () => {
    const entry = await inTenant('parent', () => bildad.engine.enqueueJob(EnqueuesJob, {}));
    const child = (await ended(entry)).output as string;
    expect((await bildad.engine.waitForJob(child)).output).toBe('parent');
  });
});

describe('under a key', () => {
  const under = (tenant: string, options: object) =>
    inTenant(tenant, () => bildad.engine.enqueueJob(CarriesJob, { tenant }, options));

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
  ])('%s: context and tenant are of one call', async (_name, options, which) => {
    await under('first', options);
    const entry = await under('second', options);
    expect(await stored(entry)).toEqual({
      $bildad: { carried: { tenant: which } },
      value: { tenant: which },
    });
    expect(await outcomeIn(entry)).toBe(which);
  });

  it('what is kept as the latest, too', async () => {
    const door = gate();
    const begun = gate();
    restoring = async (value, next) => {
      restoring = plainly;
      begun.open();
      await door.opened;
      await plainly(value, next);
    };
    const options = {
      unique: { key: 'latest', onConflict: 'keepLatest' },
    } as const;
    const first = await under('first', options);
    await begun.opened;
    const second = await under('second', options);
    door.open();
    expect((await ended(first)).output).toBe('first');
    expect((await ended(second)).output).toBe('second');
  });
});

describe('stays', () => {
  it('in automatic retries', async () => {
    const entry = await inTenant('acme', () =>
      bildad.engine.enqueueJob(CarriesJob, { fail: true }),
    );
    expect((await ended(entry)).retry).toBe(1);
    expect(saw.map(({ tenant }) => tenant)).toEqual(['acme', 'acme']);
  });

  it.each([CarriesJob, SecretJob])(
    'when the context is changed, whoever does it: %o',
    async (job) => {
      for (const app of [bildad, ops]) {
        const entry = await inTenant('acme', () => bildad.engine.enqueueJob(job, { n: 1 }, LATER));
        const changed = await inTenant('operator', () =>
          app.engine.updateJob(entry, { context: { n: 2 } }),
        );
        if (job === CarriesJob) expect(changed.jobContext).toEqual({ n: 2 });
        await outcomeIn(entry);
        expect(saw.at(-1)).toMatchObject({ tenant: 'acme', context: { n: 2 } });
      }
    },
  );

  it('a context of a job that carries nothing is changed as ever', async () => {
    const entry = await bildad.engine.enqueueJob(CarriesJob, { n: 1 }, LATER);
    await bildad.engine.updateJob(entry, { context: { n: 2 } });
    expect(await stored(entry)).toEqual({ n: 2 });
    await bildad.engine.cancelJob(entry);
  });

  it.each([CarriesJob, SecretJob])('when a job is done again, whoever does it: %o', async (job) => {
    for (const app of [bildad, ops])
      for (const context of [undefined, { n: 3 }]) {
        const first = await inTenant('acme', () => bildad.engine.enqueueJob(job, { n: 1 }));
        const run = await ended(first);
        const again = await inTenant('operator', () =>
          app.engine.retryJob(run, context ? { context } : {}),
        );
        await ended(again);
        expect(saw.at(-1)).toMatchObject({
          tenant: 'acme',
          context: context ?? { n: 1 },
        });
      }
    const none = await ended(await bildad.engine.enqueueJob(job, {}));
    const again = await inTenant('operator', () => bildad.engine.retryJob(none));
    await ended(again);
    expect(saw.at(-1)!.tenant).toBeUndefined();
  });
});

it('is sealed where its context is', async () => {
  const entry = await inTenant('acme-secret', () =>
    bildad.engine.enqueueJob(SecretJob, { n: 1 }, LATER),
  );
  const text = JSON.stringify(await stored(entry));
  expect(text).toContain('sealedCarried');
  expect(text).not.toContain('acme');
  expect(String(entry.jobContext)).toBe('[encrypted with k1]');
  await outcomeIn(entry);
  expect(saw).toMatchObject([{ tenant: 'acme-secret', context: { n: 1 } }]);
});

describe('what is sealed with a job', () => {
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

  it('and with a key that is missing here: it goes back to the queue', async () => {
    const entry = await tampered('key', 'k9');
    const putBack = bildad.next(
      'entry.released',
      (event) => event.jobRunIdentifier === entry.jobRunIdentifier,
    );
    await bildad.engine.rescheduleJob(entry, 0);
    expect((await putBack).error).toMatchObject({ keyId: 'k9' });
    await bildad.engine.removeJobFromQueue(entry);
    expect(saw).toEqual([]);
  });

  it('and was changed: its run fails', async () => {
    const entry = await tampered('sealed', 'AAAA');
    await bildad.engine.rescheduleJob(entry, 0);
    const run = await ended(entry);
    expect(run.result).toBe('FAILED');
    expect(run.reason).toContain('does not open a carried context');
    expect(saw).toEqual([]);
  });
});

describe('a capture', () => {
  const cyclic: Record<string, unknown> = {};
  cyclic['itself'] = cyclic;
  const refused = (tenant: unknown) =>
    inTenant(tenant, async () => {
      const counts = () => bildad.sql('SELECT count(*) FROM bildad.job_queue_entries');
      const before = await counts();
      const error: unknown = await bildad.engine
        .enqueueJob(CarriesJob, {})
        .catch((thrown: unknown) => thrown);
      const many: unknown = await bildad.engine
        .enqueueJobs(CarriesJob, [{}])
        .catch((thrown: unknown) => thrown);
      expect(await counts()).toEqual(before);
      for (const one of [error, many]) expect(one).toBeInstanceOf(CarriedContextError);
      return error as CarriedContextError;
    });

  it('that throws refuses the call, and says why', async () => {
    const cause = new RangeError('no tenant');
    const error = await refused(() => {
      throw cause;
    });
    expect(error).toMatchObject({ carrier: 'tenant', cause });
    expect(error.message).toMatch(/^carry\.tenant: capture\(\) threw an error/);
  });

  it.each<[string, unknown, string]>([
    ['a promise', () => Promise.resolve('acme'), 'cannot be stored'],
    ['a bigint', 1n, 'cannot be stored'],
    ['NUL', 'a\0b', 'cannot be stored'],
    ['a cycle', cyclic, 'cannot be stored'],
    ['a class', () => new Map(), 'cannot be stored'],
    ['large', 'x'.repeat(8_191), 'larger than 8192 bytes of JSON (carry)'],
  ])('of %s refuses the call', async (_name, tenant, message) => {
    const error = await refused(tenant);
    expect(error.message).toContain(message);
    expect(error.message).not.toContain('acme');
  });

  it('may be any JSON', async () => {
    for (const tenant of [null, 0, '', { a: [1, null] }, 'x'.repeat(8_190)]) {
      const entry = await inTenant(tenant, () => bildad.engine.enqueueJob(CarriesJob, {}));
      await ended(entry);
      expect(saw.at(-1)!.tenant).toEqual(tenant);
    }
  });
});

describe('a restore', () => {
  const NO_RETRY = { maxRetries: 0 };

  it('is called for a job that carries nothing, and keeps what set it off away', async () => {
    const { run } = await inTenant('whoever', () => runOnce(bildad, CarriesJob, {}, NO_RETRY));
    expect(run.output).toBe('whoever');
    const values: unknown[] = [];
    restoring = (value, next) => {
      values.push(value);
      return plainly(value, next);
    };
    const entry = await bildad.engine.enqueueJob(CarriesJob, {}, LATER);
    await inTenant('whoever', () => outcomeIn(entry));
    expect(values).toEqual([undefined]);
    expect(saw.at(-1)!.tenant).toBeUndefined();
  });

  it('the first name is the outermost', async () => {
    const entry = await inTenant('acme', () => bildad.engine.enqueueJob(CarriesJob, {}), 'a note');
    await ended(entry);
    expect(saw).toMatchObject([{ tenant: 'acme', note: 'a note' }]);
  });

  it.each<[string, typeof restoring, string]>([
    [
      'throws',
      () => {
        throw new RangeError('no such tenant');
      },
      'RangeError',
    ],
    ['rejects', () => Promise.reject(new RangeError('no')), 'RangeError'],
    ['calls nothing', () => undefined, 'CarriedContextError'],
  ])('that %s fails the run', async (_name, does, errorName) => {
    restoring = does;
    const { event } = await runOnce(bildad, CarriesJob, {}, NO_RETRY);
    expect(event).toMatchObject({ outcome: 'failed', errorName });
    expect(saw).toEqual([]);
  });

  it.each<[string, typeof restoring]>([
    [
      'throws at the end',
      async (value, next) => {
        await plainly(value, next);
        throw new RangeError('too late');
      },
    ],
    [
      'throws while it runs',
      (value, next) => {
        void plainly(value, next);
        throw new RangeError('too late');
      },
    ],
  ])('that %s changes nothing, and is told', async (_name, does) => {
    restoring = does;
    const told = bildad.next('engine.error');
    const { event } = await inTenant('acme', () => runOnce(bildad, CarriesJob, {}, NO_RETRY));
    expect(event.outcome).toBe('completed');
    expect(await told).toMatchObject({
      doing: 'carry.tenant: restore(), after its run',
      error: { message: 'too late' },
    });
  });

  it('that calls next twice runs the job once, and one that lets go runs it whole', async () => {
    restoring = (value, next) => plainly(value, () => Promise.all([next(), next()]).then(() => {}));
    await runOnce(bildad, CarriesJob, {}, NO_RETRY);
    expect(saw).toHaveLength(1);
    restoring = (value, next) => void plainly(value, next);
    const { event } = await runOnce(bildad, CarriesJob, {}, NO_RETRY);
    expect(event.outcome).toBe('completed');
  });

  it('that calls next when it has failed runs nothing', async () => {
    let late: () => Promise<void> = () => Promise.resolve();
    restoring = (_value, next) => {
      late = next;
      throw new RangeError('no');
    };
    await runOnce(bildad, CarriesJob, {}, NO_RETRY);
    await late();
    expect(saw).toEqual([]);
  });
});
