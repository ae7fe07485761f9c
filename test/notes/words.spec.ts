import { describe, expect, it } from 'vitest';
import { lineOf, toldProgress } from '../../src/life/run/notes.js';

// Whatever a handler says has a form that PostgreSQL takes, and is said without a throw.

describe('a message of progress', () => {
  it.each([
    [
      'half of a character at the cut',
      `${'x'.repeat(999)}\u{1F600}`,
      /^x{999}\uFFFD$/,
    ],
    ['NUL', 'a\0b', /^a\uFFFDb$/],
    ['a lone surrogate', 'a\uD800b', /^a\uFFFDb$/],
  ])('%s', (_what, message, told) => {
    expect(toldProgress(0.5, message).message).toMatch(told);
  });
});

it.each([Symbol('no'), {}, Object.create(null), 7, undefined])(
  'an error whose stack is %o',
  (stack) => {
    const error = Object.assign(new Error('said'), { stack });
    expect(lineOf(error, [])).toBe('Error: said');
    expect(toldProgress(1, error).message).toBe('Error: said');
  },
);
