import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { cutBytes } from '../../src/features/run-log/run-report.js';
import { toLine, toProgress } from '../../src/lifecycle/run/handler-output.js';

// All output of a handler becomes text that PostgreSQL accepts, without an exception.

describe('a progress message replaces invalid characters', () => {
  it.each([
    ['half a character at the limit', `${'x'.repeat(999)}\u{1F600}`, /^x{999}\uFFFD$/],
    ['NUL', 'a\0b', /^a\uFFFDb$/],
    ['a lone surrogate', 'a\uD800b', /^a\uFFFDb$/],
  ])('%s', (_what, message, expected) => {
    expect(toProgress(0.5, message).message).toMatch(expected);
  });
});

it.each([Symbol('no'), {}, Object.create(null), 7, undefined])(
  'an error with %o as its stack is logged by its name and message',
  (stack) => {
    const error = Object.assign(new Error('text'), { stack });
    expect(toLine(error, [])).toBe('Error: text');
    expect(toProgress(1, error).message).toBe('Error: text');
  },
);

it('a truncated line does not keep the rest of the line in memory', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  const before = process.memoryUsage().heapUsed;
  const truncated = Array.from({ length: 500 }, (_one, n) =>
    cutBytes(toLine(Buffer.alloc(60_000, 97 + (n % 26)).toString('latin1'), []), 100),
  );
  collect();
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(10_000_000);
  expect(new Set(truncated.map(({ length }) => length))).toEqual(new Set([100]));
});

it.each([
  ['\uFEFFab\u{1F600}', 8, '\uFEFFab'],
  ['ab\uD800cd', 6, 'ab\uFFFDc'],
  ['\u00E9\u00E9', 4, '\u00E9\u00E9'],
])('%j is cut to %i bytes', (text, maxBytes, cut) => {
  expect(cutBytes(text, maxBytes)).toBe(cut);
});
