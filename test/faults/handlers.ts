import { setTimeout as wait } from 'node:timers/promises';
import type { Provider } from '@nestjs/common';
import { BildadJob, type JobExecution } from 'nestjs-bildad';
import type { Ledger } from './ledger.js';
import { KINDS, MAX_RETRIES, type Kind, type LabContext } from './workload.js';

type Behaviour = (context: LabContext, job: JobExecution) => unknown;

/** What `JSON` or `jsonb` cannot hold, and what is awkward to hold. A run that returned it has succeeded. */
const HOSTILE: readonly (() => unknown)[] = [
  () => 10n,
  () => {
    const circle: { self?: unknown } = {};
    circle.self = circle;
    return circle;
  },
  () => ({ nul: 'a\0b', ['key\0']: 1 }),
  () => '\ud800',
  () => () => undefined,
  () => Number.NaN,
  () => new Map([[1, new Date(Number.NaN)]]),
  () => 'x'.repeat(2 ** 21),
  () => ({
    get broken(): unknown {
      throw new Error('a getter');
    },
  }),
];

const THROWN: readonly (() => unknown)[] = [
  () => new Error('no'),
  () => undefined,
  () => null,
  () => Symbol('no'),
  () => new Error('NUL \0 and half a pair \ud800'),
  () => Object.freeze(new Error('frozen')),
  () => new Error('x'.repeat(100_000)),
];

const thrown = (n: number): never => {
  throw THROWN[n % THROWN.length]!();
};

/** Holds the event loop, as a careless handler does. */
function spin(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

const cooperative: Behaviour = async ({ ms = 0 }, { signal }) => {
  await wait(ms, undefined, { signal });
};
const deaf: Behaviour = ({ ms = 0 }) => wait(ms);

function behaviours(ledger: Ledger, by: Said): Record<Kind, Behaviour> {
  return {
    ok: cooperative,
    long: cooperative,
    fast: () => undefined,
    stopped: deaf,
    flaky: async (context, job) => {
      await cooperative(context, job);
      if (job.retry < (context.failures ?? 1)) thrown(0);
    },
    failing: ({ n }) => thrown(n),
    deaf,
    blocking: ({ ms = 0 }, job) => {
      ledger.write({ what: 'blocks', ...by(job), ms });
      spin(ms);
    },
    poison: ({ failures = 1 }, job) => {
      if (job.retry >= failures) return;
      ledger.write({ what: 'poison', ...by(job) });
      process.kill(process.pid, 'SIGKILL');
      // The signal may be a moment on its way.
      spin(1_000);
    },
    hostile: ({ n }) => HOSTILE[n % HOSTILE.length]!(),
  };
}

type Said = (job: JobExecution) => { id: string; run: string };
const said: Said = ({ jobRunIdentifier, jobRunId }) => ({
  id: jobRunIdentifier,
  run: jobRunId,
});

/** A handler class for each kind, which says in the ledger what it does. `missing`: this version has none for that. */
export function handlers(ledger: Ledger, missing: string | null): Provider[] {
  const all = behaviours(ledger, said);
  return KINDS.filter((kind) => kind !== missing).map((kind) => {
    const behave = all[kind];
    class LabJob {
      async runJob(context: LabContext, job: JobExecution): Promise<unknown> {
        const which = said(job);
        let aborted = false;
        ledger.write({
          what: 'start',
          ...which,
          kind,
          cooperative: behave === cooperative,
        });
        // A burst has hundreds of these; nobody aborts a job that does nothing.
        if (kind !== 'fast')
          job.signal.addEventListener('abort', () => {
            aborted = true;
            ledger.write({ what: 'aborted', ...which });
          });
        try {
          const output = await behave(context, job);
          ledger.write({ what: 'effect', ...which });
          ledger.write({ what: 'end', ...which, how: 'returned' });
          return output;
        } catch (error) {
          ledger.write({
            what: 'end',
            ...which,
            how: aborted ? 'aborted' : 'threw',
          });
          throw error;
        }
      }
    }
    BildadJob({
      code: kind.toUpperCase(),
      maxRetries: MAX_RETRIES[kind],
      backoff: BACKOFF,
      ...(kind === 'deaf' && { timeout: 700 }),
    })(LabJob);
    Object.defineProperty(LabJob, 'name', { value: `Lab_${kind}` });
    return LabJob;
  });
}

/** Short, so that a minute holds many. */
const BACKOFF = { type: 'exponential', delay: 200, maxDelay: 1_000 } as const;
