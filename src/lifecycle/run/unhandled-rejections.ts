import { AsyncLocalStorage } from 'node:async_hooks';
import type { JobProcess } from './job-process.js';

export type StrayHeard = (process: JobProcess, error: unknown) => void;

const at = new AsyncLocalStorage<{ process: JobProcess; heard: StrayHeard }>();
/** For good: a handler may outlive its engine. */
let listening = false;

/**
 * Rejections that nobody handles end a Node process. Those that come from a handler which runs inline are
 * told to its engine instead; all others do what they would have done without it.
 */
export class Strays {
  /** @param attributes false: rejections are none of its business */
  constructor(
    private readonly attributes: boolean,
    private readonly heard: StrayHeard,
  ) {}

  listen(): void {
    if (listening || !this.attributes) return;
    listening = true;
    // Before a listener that is there for one time only: it is counted then.
    process.prependListener('unhandledRejection', attribute);
  }

  /** Whatever this begins is known to be of that job. */
  around<A extends unknown[], T>(job: JobProcess, begin: (...given: A) => T, ...given: A): T {
    // Once it is used, each promise of the process costs more: 2.5 us of 10 for a no-op job on Node 20.
    if (!this.attributes) return begin(...given);
    return at.run({ process: job, heard: this.heard }, begin, ...given);
  }
}

function attribute(reason: unknown): void {
  const job = at.getStore();
  if (job) return job.heard(job.process, reason);
  // With another listener Node would not have ended either; it says what it was told to say.
  if (process.listenerCount('unhandledRejection') > 1 || isTolerant()) return;
  throw reason;
}

const TOLERANT = /--unhandled-rejections[= ](none|warn|warn-with-error-codes)\b/;
const isTolerant = () =>
  TOLERANT.test([...process.execArgv, process.env.NODE_OPTIONS ?? ''].join(' '));
