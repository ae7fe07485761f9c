import { bildadMatchers, type ToHaveEnqueued, type ToHaveEnqueuedTimes } from './matchers.js';

// A setup file of jest's: `setupFilesAfterEnv: ['nestjs-bildad/testing/jest']`, or imported by a spec.

export type { Matchers } from 'expect';

declare module 'expect' {
  // As `expect` declares it.
  interface Matchers<R extends void | Promise<void>, T = unknown> {
    /** Of a BildadTesting: that a job was enqueued whose context has at least these properties. To be awaited. */
    toHaveEnqueued: ToHaveEnqueued<R>;
    /** The same, so many times. To be awaited. */
    toHaveEnqueuedTimes: ToHaveEnqueuedTimes<R>;
  }
}

declare global {
  // Where @types/jest is used.
  namespace jest {
    interface Matchers<R, T = {}> {
      toHaveEnqueued: ToHaveEnqueued<R>;
      toHaveEnqueuedTimes: ToHaveEnqueuedTimes<R>;
    }
  }
}

const { expect } = globalThis as unknown as {
  expect: { extend(matchers: object): void };
};
expect.extend(bildadMatchers);
