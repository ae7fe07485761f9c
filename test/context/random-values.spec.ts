import fc from 'fast-check';
import { InvalidJobContextError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { CaptureJob } from '../support/capture.js';

// Any value is either stored unchanged or rejected. A failure prints the seed that reproduces it.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [CaptureJob] });
});
afterAll(() => bildad.close());

/** JSON has no negative zero: JSON.stringify writes it as 0. All other values must be equal. */
function unsigned(value: unknown): unknown {
  if (Object.is(value, -0)) return 0;
  if (Array.isArray(value)) return value.map(unsigned);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, unsigned(member)]));
}

it('any JSON value is stored unchanged', async () => {
  // Excludes NUL, lone surrogates and -0.
  const text = fc.string({ unit: 'grapheme' });
  const json = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      fc.constant(null),
      fc.boolean(),
      fc.double({ noNaN: true, noDefaultInfinity: true }).filter((n) => !Object.is(n, -0)),
      text,
      fc.array(tie('value')),
      fc.dictionary(
        text.filter((key) => key !== '__proto__'),
        tie('value'),
        { noNullPrototype: true },
      ),
    ),
  })).value;
  await fc.assert(
    fc.asyncProperty(fc.array(json, { minLength: 1, maxLength: 50 }), async (contexts) => {
      const entries = await bildad.engine.enqueueJobs(CaptureJob, contexts);
      expect(entries.map(({ jobContext }) => jobContext)).toEqual(contexts);
    }),
    { numRuns: 50 },
  );
});

it('any other value is stored or rejected', async () => {
  const anything = fc.anything({
    withBigInt: true,
    withBoxedValues: true,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    withObjectString: true,
    withSet: true,
    withSparseArray: true,
    withTypedArray: true,
    stringUnit: 'binary',
  });
  const seen = { stored: 0, refused: 0 };
  await fc.assert(
    fc.asyncProperty(anything, async (context) => {
      try {
        const entry = await bildad.engine.enqueueJob(CaptureJob, context);
        expect(entry.jobContext).toEqual(unsigned(context));
        seen.stored++;
      } catch (error) {
        if (!(error instanceof InvalidJobContextError)) throw error;
        expect(error.violations).not.toEqual([]);
        seen.refused++;
      }
    }),
    { numRuns: 500, examples: [[-0], [{ n: [-0] }]] },
  );
  expect(seen.stored).toBeGreaterThan(0);
  expect(seen.refused).toBeGreaterThan(0);
});
