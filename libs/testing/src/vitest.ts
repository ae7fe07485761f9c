import { expect } from 'vitest';
import { bildadMatchers, type ToHaveEnqueued, type ToHaveEnqueuedTimes } from './matchers.js';

// A setup file of vitest's: `setupFiles: ['nestjs-bildad/testing/vitest']`, or imported by a spec.

declare module 'vitest' {
  // As vitest declares it.
  interface Matchers<T = any> {
    /** Of a BildadTesting: that a job was enqueued whose context has at least these properties. To be awaited. */
    toHaveEnqueued: ToHaveEnqueued<void>;
    /** The same, so many times. To be awaited. */
    toHaveEnqueuedTimes: ToHaveEnqueuedTimes<void>;
  }
}

expect.extend(bildadMatchers as Parameters<typeof expect.extend>[0]);
