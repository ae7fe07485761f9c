import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { cutBytes } from '../../src/features/run-log/run-report.js';
import { toLine, toProgress } from '../../src/lifecycle/run/handler-output.js';

// Whatever a handler says has a form that PostgreSQL takes, and is said without a throw.

describe('a message of progress', () => {
  it.each([
    ['half of a character at the cut', `${'x'.repeat(999)}\u{1F600}`, /^x{999}\uFFFD$/],
    ['NUL', 'a\0b', /^a\uFFFDb$/],
    ['a lone surrogate', 'a\uD800b', /^a\uFFFDb$/],
  ])('%s', (_what, message, told) => {
    expect(toProgress(0.5, message).message).toMatch(told);
  });
});

it.each([Symbol('no'), {}, Object.create(null), 7, undefined])(
  'an error whose stack is %o',
  (stack) => {
    const error = Object.assign(new Error('said'), { stack });
    expect(toLine(error, [])).toBe('Error: said');
    expect(toProgress(1, error).message).toBe('Error: said');
  },
);

it('what is cut off of a line is not held with the rest of it', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  const before = process.memoryUsage().heapUsed;
  const kept = Array.from({ length: 500 }, (_one, n) =>
    cutBytes(toLine(Buffer.alloc(60_000, 97 + (n % 26)).toString('latin1'), []), 100),
  );
  collect();
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(10_000_000);
  expect(new Set(kept.map(({ length }) => length))).toEqual(new Set([100]));
});

it.each([
  ['\uFEFFab\u{1F600}', 8, '\uFEFFab'],
  ['ab\uD800cd', 6, 'ab\uFFFDc'],
  ['\u00E9\u00E9', 4, '\u00E9\u00E9'],
])('%j has %i bytes of room', (text, most, cut) => {
  expect(cutBytes(text, most)).toBe(cut);
});
