import { BildadJob, type JobHandler, type JobRun } from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { claimNext } from '../../src/lifecycle/claim/claim.sql.js';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase } from '../support/database.js';

// For any returned or thrown value the run ends once with the right outcome. A value that cannot be
// stored is replaced by a marker.

/** The handler functions by case name, because functions cannot be stored in a context. */
const CASES = new Map<string, (context: Record<string, unknown>) => unknown>();

@BildadJob({ code: 'UNTRUSTED', maxRetries: 3 })
class UntrustedJob implements JobHandler<{ case: string }> {
  static runs = 0;

  runJob(context: { case: string }): unknown {
    UntrustedJob.runs++;
    return CASES.get(context.case)!(context);
  }
}

let bildad: TestApp;
let runtime: BildadRuntime;
beforeAll(async () => {
  bildad = await bootApp({ providers: [UntrustedJob] });
  runtime = runtimeOf(bildad);
});
afterAll(() => bildad.close());

const runtimeOf = ({ engine }: TestApp) => (engine as unknown as { bildad: BildadRuntime }).bildad;

/** Runs a job whose run row is written at claim, or together with its end. */
const PATHS = {
  ordinary: async (identifier: string) => {
    const entry = await bildad.jobs.getJobQueueEntryForIdentifier(identifier);
    await bildad.engine.runJob(entry!);
  },
  'late row': async () => {
    const { store, node, runs } = runtime;
    const { claims } = await claimNext(
      store.dataSource,
      store.tables,
      { nodeId: node.id, leaseMs: node.leaseMs },
      ['UNTRUSTED'],
      1,
      { lateRows: true },
    );
    runtime.lateRows.track([claims[0]!.claimed]);
    await runs.launch(claims[0]!.claimed);
  },
};

async function runOf(
  path: keyof typeof PATHS,
  act: () => unknown,
  maxRetries = 3,
): Promise<JobRun> {
  const { engine, jobs } = bildad;
  CASES.set('now', act);
  UntrustedJob.runs = 0;
  const { jobRunIdentifier } = await engine.enqueueJob(
    UntrustedJob,
    { case: 'now' },
    { maxRetries },
  );
  await PATHS[path](jobRunIdentifier);
  const run = await engine.waitForJob(jobRunIdentifier, { timeout: '10s' });
  // The job has run once and left the queue.
  expect(UntrustedJob.runs).toBe(1);
  expect(await jobs.getJobQueueEntryForIdentifier(jobRunIdentifier)).toBeNull();
  expect(await jobs.listJobRunsForIdentifier(jobRunIdentifier)).toHaveLength(1);
  return run;
}

const nested = (depth: number): unknown => {
  let value: unknown = null;
  for (let level = 0; level < depth; level++) value = [value];
  return value;
};
const cycle: Record<string, unknown> = {};
cycle['self'] = cycle;
const trap = () => {
  throw new Error('go away');
};
const anyTrap = new Proxy({}, { get: () => trap });
const proxy = (target: object) => new Proxy(target, anyTrap);
const revoked = Proxy.revocable({}, {});
revoked.revoke();
const why = (reason: RegExp) => ({
  $unserializable: expect.stringMatching(reason) as string,
});

describe.each(Object.keys(PATHS) as (keyof typeof PATHS)[])('%s', (path) => {
  it.each<[what: string, returned: () => unknown, stored: unknown]>([
    ['nothing', () => undefined, null],
    ['null', () => null, null],
    ['text', () => 'said', 'said'],
    ['NUL', () => ({ a: 'x\0y' }), { a: 'x\uFFFDy' }],
    ['a lone surrogate', () => ['\uD83D', '🎉'], ['\uFFFD', '🎉']],
    ['NUL in a key', () => ({ 'a\0': 1 }), why(/a key holds NUL/)],
    ['an escape that is text', () => ({ '\\u0000': 1 }), { '\\u0000': 1 }],
    ['a bigint', () => 1n, why(/bigint/)],
    ['a bigint inside', () => ({ a: [1n, 2] }), { a: [why(/bigint/), 2] }],
    ['a cycle', () => cycle, why(/circular/i)],
    ['a function', () => () => 1, why(/function has no JSON/)],
    ['a symbol', () => Symbol('x'), why(/symbol has no JSON/)],
    ['NaN', () => NaN, why(/NaN/)],
    ['infinities', () => [Infinity, -Infinity], [why(/^Inf/), why(/^-Inf/)]],
    ['a Date', () => new Date(0), '1970-01-01T00:00:00.000Z'],
    ['no date', () => ({ at: new Date(NaN) }), { at: null }],
    ['a Map', () => ({ m: new Map([[1, 2]]), n: 1 }), { m: why(/Map/), n: 1 }],
    ['a Set', () => new Set([1]), why(/Set/)],
    ['a RegExp', () => [/x/], [why(/RegExp/)]],
    ['an Error', () => [new TypeError('no\0')], [{ name: 'TypeError', message: 'no\uFFFD' }]],
    [
      'an Error with a toJSON that adds details',
      () =>
        [new RangeError('denied')].map((reason) => ({
          reason: Object.assign(reason, {
            toJSON: () => ({ headers: { authorization: 'Bearer x' } }),
          }),
        })),
      [{ reason: { name: 'RangeError', message: 'denied' } }],
    ],
    [
      'a Map with a toJSON',
      () => Object.assign(new Map([[1, 2]]), { toJSON: () => ({ 1: 2 }) }),
      { 1: 2 },
    ],
    [
      'a getter that throws',
      () => ({
        get a() {
          return trap();
        },
      }),
      why(/go away/),
    ],
    ['a toJSON that throws', () => ({ toJSON: trap }), why(/go away/)],
    ['a frozen object', () => Object.freeze({ a: Object.freeze([1]) }), { a: [1] }],
    ['a Proxy that throws', () => proxy({}), why(/go away/)],
    ['a Proxy inside', () => ({ a: proxy({}) }), why(/go away/)],
    ['a revoked Proxy', () => revoked.proxy, why(/revoked/)],
    [
      'an object that throws a Proxy',
      () => ({
        toJSON: () => {
          throw proxy({});
        },
      }),
      why(/./),
    ],
    [
      'a then that throws',
      // oxlint-disable-next-line unicorn/no-thenable -- a thenable is the test case
      () => Object.defineProperty({}, 'then', { get: trap, enumerable: true }),
      why(/go away/),
    ],
    ['50 MB of text', () => 'x'.repeat(50_000_000), why(/longer than 1048576/)],
    ['20 MB of numbers', () => Array.from({ length: 10_000_000 }, () => 1), why(/longer than/)],
    ['a megabyte of ü', () => 'ü'.repeat(600_000), why(/longer than/)],
    ['a depth of 100,000', () => nested(100_000), why(/call stack/)],
    ['a depth of 2,000', () => nested(2_000), nested(2_000)],
    [
      '__proto__',
      () => JSON.parse('{"__proto__": {"isAdmin": true}}') as unknown,
      JSON.parse('{"__proto__": {"isAdmin": true}}') as unknown,
    ],
  ])('a returned value: %s', async (_what, returned, stored) => {
    const run = await runOf(path, returned);
    expect(run).toMatchObject({ result: 'SUCCEEDED', reason: null });
    expect(run.output).toEqual(stored);
  });

  it.each<[what: string, thrown: () => unknown, reason: RegExp]>([
    ['an Error', () => new Error('no paper'), /^no paper$/],
    ['undefined', () => undefined, /^undefined$/],
    ['null', () => null, /^null$/],
    ['a symbol', () => Symbol('x'), /^Symbol\(x\)$/],
    ['a bigint', () => 1n, /^1$/],
    ['a function', () => () => 1, /^\(\) => 1$/],
    ['NUL', () => new Error('a\0b'), /^a\uFFFDb$/],
    ['a lone surrogate', () => new Error('a\uD83D'), /^a\uFFFD$/],
    ['no message', () => new RangeError(), /^RangeError$/],
    ['an object', () => ({ a: 1 }), /^\[object Object\]$/],
    ['no prototype', () => Object.create(null) as object, /cannot be shown/],
    ['a frozen Error', () => Object.freeze(new Error('cold')), /^cold$/],
    [
      'a cycle',
      () => {
        const e = new Error('round');
        e.cause = e;
        return e;
      },
      /^round$/,
    ],
    [
      'a getter that throws',
      () => ({
        get message() {
          return trap();
        },
      }),
      /object/,
    ],
    ['a toString that throws', () => ({ toString: trap }), /cannot be shown/],
    ['a Proxy that throws', () => proxy(new Error('hidden')), /cannot be shown/],
    ['a revoked Proxy', () => revoked.proxy, /cannot be shown/],
    ['50 MB of message', () => new Error('ü'.repeat(50_000_000)), /^ü{8000}$/],
    ['50 MB of text', () => 'x'.repeat(50_000_000), /^x{8000}$/],
    ['a depth of 100,000', () => nested(100_000), /cannot be shown/],
    [
      'deep violations',
      () => Object.assign(new Error('deep'), { violations: [nested(100_000)] }),
      /^deep$/,
    ],
    [
      'hostile violations',
      () => Object.assign(new Error('deep'), { violations: proxy([]) }),
      /^deep$/,
    ],
    ['a code of NaN', () => Object.assign(new Error('x'), { code: NaN }), /^x$/],
  ])('a thrown value: %s', async (_what, thrown, reason) => {
    const act = () => {
      throw thrown();
    };
    const run = await runOf(path, act, 0);
    expect(run).toMatchObject({ result: 'FAILED', output: null });
    expect(run.reason).toMatch(reason);
    expect(run.reason!.length).toBeLessThanOrEqual(8_000);
    expect(run.reason!.isWellFormed()).toBe(true);
    expect(run.error).toMatchObject({ name: expect.any(String) as string });
    expect(JSON.stringify(run.error).length).toBeLessThan(200_000);
  });
});

describe('values that only PostgreSQL rejects', () => {
  const whole = () => ({ bildad, runtime });
  let before: ReturnType<typeof whole>;
  beforeAll(async () => {
    before = whole();
    const database = await createDatabase();
    // As deep as a few hundred nested arrays.
    await database.sql(
      `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET max_stack_depth = ''100kB''', current_database()); END $$`,
    );
    bildad = await bootApp({ providers: [UntrustedJob], database });
    runtime = runtimeOf(bildad);
  });
  afterAll(async () => {
    await bildad.close();
    await bildad.database.drop();
    ({ bildad, runtime } = before);
  });

  it.each(
    (Object.keys(PATHS) as (keyof typeof PATHS)[]).flatMap((path) => [
      [path, 'a depth of 2,000', () => nested(2_000)] as const,
      [path, 'a depth of 2,000 in a marker', () => ({ $unserializable: nested(2_000) })] as const,
    ]),
  )('%s: %s', async (path, _what, returned) => {
    const run = await runOf(path, returned);
    expect(run).toMatchObject({ result: 'SUCCEEDED', reason: null });
    expect(run.output).toEqual(why(/PostgreSQL refused it \(54001\)/));
  });
});

describe('untrusted contexts', () => {
  it('changes to a context by its handler do not reach the next run or the next job', async () => {
    const { engine, jobs } = bildad;
    const seen: string[] = [];
    CASES.set('now', (context) => {
      seen.push(JSON.stringify(context));
      context['case'] = 'gone';
      context['more'] = { x: 1 };
      if (seen.length === 1) throw new Error('once more');
    });
    const entries = await engine.enqueueJobs(UntrustedJob, [{ case: 'now' }, { case: 'now' }]);
    for (const { jobRunIdentifier } of entries) {
      await expect
        .poll(async () => {
          await engine.runJobEngine();
          return jobs.getJobQueueEntryForIdentifier(jobRunIdentifier);
        })
        .toBeNull();
      for (const run of await jobs.listJobRunsForIdentifier(jobRunIdentifier))
        expect(run.jobContext).toEqual({ case: 'now' });
    }
    expect(seen).toEqual(Array.from({ length: 3 }, () => '{"case":"now"}'));
  });

  it('a __proto__ key written with SQL does not change a prototype', async () => {
    const { engine, sql } = bildad;
    let keys: string[] = [];
    CASES.set('now', (context) => {
      keys = Object.keys(context);
    });
    const entry = await engine.enqueueJob(UntrustedJob, { case: 'now' });
    await sql(
      `UPDATE bildad.job_queue_entries SET job_context = '{"case": "now", "__proto__": {"isAdmin": true}}' WHERE id = $1`,
      [entry.id],
    );
    await engine.runJob(entry);
    expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      result: 'SUCCEEDED',
    });
    expect(keys).toEqual(['case', '__proto__']);
    expect(({} as { isAdmin?: boolean }).isAdmin).toBeUndefined();
  });

  it('a handler that changes Object.prototype through its context does not stop the engine', async () => {
    const { engine } = bildad;
    CASES.set('pollute', () => {
      (Object.prototype as Record<string, unknown>)['polluted'] = { x: 1 };
    });
    CASES.set('after', () => ({ well: true }));
    try {
      const one = await engine.enqueueAndRunJob(UntrustedJob, {
        case: 'pollute',
      });
      expect(await engine.waitForJob(one.jobRunIdentifier)).toMatchObject({
        result: 'SUCCEEDED',
      });
      const next = await engine.enqueueJob(UntrustedJob, { case: 'after' });
      await engine.runJobEngine();
      const run = await engine.waitForJob(next.jobRunIdentifier);
      expect(Object.keys(run.jobContext as object)).toEqual(['case']);
      expect(JSON.stringify(run.output)).toBe('{"well":true}');
    } finally {
      delete (Object.prototype as Record<string, unknown>)['polluted'];
    }
  });
});
