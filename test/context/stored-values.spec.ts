import { InvalidJobContextError } from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { CaptureJob, refusal, roundTrip } from '../support/capture.js';

// A value that JSON or PostgreSQL would change silently is rejected at enqueue. Any other value
// reaches the handler unchanged.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [CaptureJob] });
});
afterAll(() => bildad.close());

const nested = (depth: number): object => {
  let value: object = {};
  for (let level = 1; level < depth; level++) value = { in: value };
  return value;
};
const shared = { street: 'Main St' };
const nullPrototype = Object.assign(Object.create(null) as object, { a: 1 });
class Point {
  constructor(
    readonly x: number,
    readonly y: number,
  ) {}
}

describe('a value that is stored unchanged', () => {
  it.each<[what: string, context: unknown]>([
    ['an empty object', {}],
    ['emoji and characters outside the BMP', { '👩‍👩‍👧': '🎉', text: '𝄞 ü \uFFFF' }],
    ['control characters', { text: '\u0001\t\n\r\u007F\u2028' }],
    ['text that looks like an escape', { text: '\\u0000 \\ud800 \\' }],
    ['keys with quotes and newlines', { 'a"b': 1, "c'd": 2, 'e\nf': 3 }],
    ['an empty key', { '': { '': [''] } }],
    ['keys that look like paths', { 'a.b[0]': 1, $1: 2, '%s': 3, '?': 4 }],
    ['keys that are names of Object.prototype members', { constructor: 1, toString: { x: 2 } }],
    ['a toJSON property that is text', { toJSON: 'x', valueOf: null }],
    ['huge numbers', [1e308, -1e308, Number.MAX_VALUE]],
    ['tiny numbers', [5e-324, -5e-324, 2.2250738585072014e-308]],
    ['large integers', [2 ** 53 - 1, 2 ** 53 + 2, -(2 ** 53), 1e21]],
    ['fractions', [0.1, 1 / 3, 123456.789]],
    ['a shared reference', { from: shared, to: shared, all: [shared, shared] }],
    ['99 levels', nested(99)],
    ['an object without prototype', nullPrototype],
    ['properties that are undefined', { a: undefined, b: 1 }],
    ['an array', [1, 'two', [3], null, false]],
    ['text', 'just text'],
    ['a number', 42],
    ['false', false],
    ['null', null],
    [
      'a hundred thousand keys',
      Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [n.toString(36), 1])),
    ],
    ['a long array', Array.from({ length: 100_000 }, (_, n) => n)],
    ['text of almost a megabyte', { text: 'x'.repeat(1_048_576 - 11) }],
  ])('%s', async (_what, context) => {
    const { entry, run, handler } = await roundTrip(bildad, context);
    expect(handler).toEqual(context);
    expect(run).toEqual(context);
    expect(entry).toEqual(context);
  });

  it('an instance of a class is stored as its own properties', async () => {
    const { handler, run } = await roundTrip(bildad, {
      at: new Point(1, 2),
    });
    expect(handler).toEqual({ at: { x: 1, y: 2 } });
    expect(run).toEqual({ at: { x: 1, y: 2 } });
  });

  it('-0 is stored as 0', async () => {
    const { handler } = await roundTrip(bildad, { a: -0 });
    expect(handler).toEqual({ a: 0 });
  });

  it('later changes by the caller have no effect', async () => {
    const context = { list: [1] };
    const enqueued = bildad.engine.enqueueJob(CaptureJob, context);
    const entry = await enqueued;
    context.list.push(2);
    expect(entry.jobContext).toEqual({ list: [1] });
  });

  it('a getter is read once', async () => {
    let reads = 0;
    const { handler } = await roundTrip(bildad, {
      get count() {
        return ++reads;
      },
    });
    expect(handler).toEqual({ count: 1 });
  });
});

describe('a rejected value, with its path and the reason', () => {
  const cycle: Record<string, unknown> = { name: 'a' };
  cycle['child'] = { parent: cycle };
  const ring: unknown[] = [];
  ring.push([ring]);
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  const trap = () => {
    throw new Error('go away');
  };
  // eslint-disable-next-line no-sparse-arrays -- a sparse array is the test case
  const sparse = [1, , 3];

  it.each<[what: string, context: unknown, path: string, why: RegExp]>([
    ['NUL', { to: 'a\0b' }, 'to', /NUL/],
    ['NUL in a key', { ['a\0b']: 1 }, 'a\uFFFDb', /NUL/],
    ['a lone high surrogate', { a: ['\uD83D'] }, 'a[0]', /lone surrogate/],
    ['a lone low surrogate', { a: '\uDE00!' }, 'a', /lone surrogate/],
    ['a lone surrogate in a key', { '\uD83D': 1 }, '\uFFFD', /surrogate/],
    ['__proto__', JSON.parse('{"a":{"__proto__":{"x":1}}}'), 'a.__proto__', /./],
    ['a bigint', { id: 1n }, 'id', /bigint/],
    ['a Date', { at: new Date() }, 'at', /ISO string/],
    ['an invalid Date', { at: new Date(NaN) }, 'at', /invalid Date/],
    ['NaN', { a: [0, NaN] }, 'a[1]', /NaN/],
    ['Infinity', { a: Infinity }, 'a', /Infinity/],
    ['-Infinity', { a: -Infinity }, 'a', /-Infinity/],
    ['a cycle', cycle, 'child.parent', /refers back/],
    ['a cycle of arrays', ring, '[0][0]', /refers back/],
    ['a hole', { a: sparse }, 'a[1]', /undefined/],
    ['undefined in an array', { a: [undefined] }, 'a[0]', /undefined/],
    ['undefined', undefined, '', /undefined/],
    ['a Map', { a: new Map([[1, 2]]) }, 'a', /Map/],
    ['a Set', { a: new Set([1]) }, 'a', /Set/],
    ['a Buffer', { a: Buffer.from('x') }, 'a', /Uint8Array/],
    ['an ArrayBuffer', { a: new ArrayBuffer(2) }, 'a', /ArrayBuffer/],
    ['a URL', { a: new URL('http://x') }, 'a', /URL/],
    ['an Error', { a: new Error('x') }, 'a', /Error/],
    ['a RegExp', { a: /x/ }, 'a', /RegExp/],
    ['a Promise', { a: Promise.resolve() }, 'a', /Promise/],
    ['boxed text', { a: Object('x') as unknown }, 'a', /String/],
    [
      'an object of a class with a toJSON method',
      {
        a: new (class Money {
          toJSON() {
            return '1 EUR';
          }
        })(),
      },
      'a',
      /Money with a toJSON/,
    ],
    ['a symbol', { a: Symbol('x') }, 'a', /symbol/],
    ['a symbol as key', { a: { [Symbol('x')]: 1 } }, 'a', /symbol/],
    ['a function', { a: () => 1 }, 'a', /function/],
    ['a class', { a: Point }, 'a', /function/],
    [
      'a getter that throws',
      {
        a: {
          get b(): number {
            throw new TypeError('secret');
          },
        },
      },
      'a',
      /cannot be read: TypeError/,
    ],
    ['a Proxy that throws', { a: new Proxy({}, { ownKeys: trap }) }, 'a', /cannot be read/],
    [
      'a Proxy without prototype',
      { a: new Proxy({}, { getPrototypeOf: trap }) },
      'a',
      /cannot be read/,
    ],
    ['a revoked Proxy', { a: revoked.proxy }, 'a', /cannot be read/],
    ['101 levels', nested(101), `in${'.in'.repeat(99)}`, /deeper than 100/],
  ])('%s', async (_what, context, path, why) => {
    const [first] = await refusal(bildad, context);
    expect(first!.path).toBe(path.slice(0, 300));
    expect(first!.message).toMatch(why);
    expect(first!.message).not.toMatch(/secret|go away/);
  });

  it('all violations are reported at once', async () => {
    const paths = (await refusal(bildad, { a: NaN, b: [1n], c: { d: '\0' } })).map(
      ({ path }) => path,
    );
    expect(paths).toEqual(['a', 'b[0]', 'c.d']);
  });

  it('at most a hundred violations are reported', async () => {
    const wrong = Array.from({ length: 10_000 }, () => NaN);
    expect(await refusal(bildad, wrong)).toHaveLength(100);
  });

  it('a value that expands beyond the size limit is rejected at once', async () => {
    // Each level refers to the next one twice: 2^40 values, no cycle.
    let twice: unknown = 'x';
    for (let level = 0; level < 40; level++) twice = [twice, twice];
    const [first] = await refusal(bildad, twice);
    expect(first!.message).toMatch(/1048576.*maxContextBytes/);
  });

  it('enqueueJobs reports the index of each invalid context and enqueues none', async () => {
    const before = await bildad.jobs.getNumberOfJobsInTheQueue();
    const error: unknown = await bildad.engine
      .enqueueJobs(CaptureJob, [{ a: 1 }, { a: { b: 1n } }, 'ok', NaN])
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(InvalidJobContextError);
    expect((error as InvalidJobContextError).violations).toMatchObject([
      { path: '[1].a.b' },
      { path: '[3]' },
    ]);
    expect(await bildad.jobs.getNumberOfJobsInTheQueue()).toBe(before);
  });
});

describe('the size limit', () => {
  const tenMegabytes = {
    rows: Array.from({ length: 1_000 }, (_, n) => ({
      n,
      text: 'ü'.repeat(5_200),
    })),
  };

  it('more than a megabyte of JSON is rejected by default', async () => {
    const [first, ...others] = await refusal(bildad, tenMegabytes);
    expect(others).toEqual([]);
    expect(first).toMatchObject({ path: '' });
    expect(first!.message).toMatch(/1048576 bytes .*maxContextBytes/);
  });

  it('undefined properties do not count', async () => {
    const sparse = Object.fromEntries(
      Array.from({ length: 100_000 }, (_, n) => [`property${n}`, undefined]),
    );
    const { handler } = await roundTrip(bildad, { a: 1, ...sparse });
    expect(handler).toEqual({ a: 1 });
  });

  it('the limit counts bytes, not characters', async () => {
    const letters = { text: 'ü'.repeat(524_288) };
    const [first] = await refusal(bildad, letters);
    expect(first!.message).toMatch(/larger than 1048576 bytes/);
  });

  it('a context of ten megabytes is stored with a higher maxContextBytes', async () => {
    const appWithHigherLimit = await bootApp({
      providers: [CaptureJob],
      options: { maxContextBytes: 20_000_000 },
    });
    const { entry, run, handler } = await roundTrip(appWithHigherLimit, tenMegabytes);
    expect(handler).toEqual(tenMegabytes);
    expect(run).toEqual(tenMegabytes);
    expect(entry).toEqual(tenMegabytes);
    await appWithHigherLimit.close();
  });
});
