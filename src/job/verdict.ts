import type { Backoff } from './backoff.js';
import type { RunFacts } from './run-facts.js';
import type { Outcome, OutcomeKind } from './outcome.js';
import { JobRunResult } from './status.js';
import { backoffDelay } from './backoff.js';
import { errorRecord, reasonOf, storableOutput } from './storable-output.js';

interface Rule {
  result: JobRunResult;
  /** The run's reason; null if it comes from the error, or if there is none. */
  reason: string | null;
  /**
   * What happens to the queue entry. `retry`: removed when retry + 1 > maxRetries, else reopened. `crash`: removed when
   * the job has reached `maxCrashes` or has maxRetries 0, else reopened.
   */
  entry: 'remove' | 'reopen' | 'retry' | 'crash';
  /** Whether a reopened entry waits for its backoff. */
  backoff: boolean;
  /** Whether the run counts against maxRetries. */
  counts: boolean;
}

const { SUCCEEDED, FAILED } = JobRunResult;

/** The state machine's table; `docs/state-machine.md` shows it and a test compares the two. */
export const RULES: Readonly<Record<OutcomeKind, Rule>> = {
  completed: { result: SUCCEEDED, reason: null, entry: 'remove', backoff: false, counts: true },
  failed: { result: FAILED, reason: null, entry: 'retry', backoff: true, counts: true },
  failedForGood: { result: FAILED, reason: null, entry: 'remove', backoff: false, counts: true },
  snoozed: { result: FAILED, reason: 'Snoozed', entry: 'reopen', backoff: false, counts: false },
  timedOut: { result: FAILED, reason: 'Timeout', entry: 'retry', backoff: true, counts: true },
  killed: { result: FAILED, reason: 'Killed', entry: 'retry', backoff: true, counts: true },
  expired: { result: FAILED, reason: 'Expired', entry: 'retry', backoff: true, counts: true },
  crashed: { result: FAILED, reason: 'Expired', entry: 'crash', backoff: true, counts: false },
  hostDied: { result: FAILED, reason: null, entry: 'crash', backoff: true, counts: false },
  stopped: { result: FAILED, reason: 'Stopped', entry: 'reopen', backoff: false, counts: true },
  invalidContext: { result: FAILED, reason: null, entry: 'remove', backoff: false, counts: true },
  interrupted: {
    result: FAILED,
    reason: 'Interrupted',
    entry: 'reopen',
    backoff: false,
    counts: false,
  },
  cancelled: { result: FAILED, reason: 'Cancelled', entry: 'remove', backoff: false, counts: true },
  missed: { result: FAILED, reason: 'Missed', entry: 'remove', backoff: false, counts: true },
};

/** The values that are written when a run ends. */
export interface Verdict {
  result: JobRunResult;
  reason: string | null;
  /** JSON text, or null. */
  error: string | null;
  /** JSON text, or null. */
  output: string | null;
  entry: 'remove' | 'reopen';
  /** Milliseconds until a reopened entry is due. */
  delayMs: number;
  /** Whether the run counts against maxRetries. */
  counts: boolean;
}

/** Decides what an outcome means for the run and its queue entry. Pure: `random` (0 to 1) is an argument. */
export function verdictOn(
  outcome: Outcome,
  run: RunFacts,
  defaultBackoff: Backoff,
  random: number,
): Verdict {
  const rule = RULES[outcome.kind];
  const error = 'error' in outcome ? outcome.error : undefined;
  const countedRetry = run.retry - run.uncountedRuns;
  const crashedOut = 'crashes' in outcome && outcome.crashes >= outcome.maxCrashes;
  const exhausted =
    rule.entry === 'crash'
      ? crashedOut || run.maxRetries === 0
      : rule.entry === 'retry' && countedRetry + 1 > run.maxRetries;
  const entry = rule.entry === 'remove' || exhausted ? 'remove' : 'reopen';
  // The first crash has no backoff: most often another job killed the node.
  const earlier = 'crashes' in outcome ? outcome.crashes - 1 : countedRetry;
  return {
    result: rule.result,
    reason:
      'error' in outcome
        ? reasonOf(outcome.error)
        : crashedOut
          ? 'Crashed'
          : 'why' in outcome
            ? reasonOf({ message: `${rule.reason}: ${outcome.why}` })
            : rule.reason,
    error: 'error' in outcome ? errorRecord(outcome.error) : null,
    output: 'output' in outcome ? storableOutput(outcome.output) : null,
    entry,
    delayMs:
      'delayMs' in outcome
        ? outcome.delayMs
        : entry === 'reopen' && rule.backoff && earlier >= 0
          ? backoffDelay(run.backoff ?? defaultBackoff, earlier, error, random)
          : 0,
    counts: rule.counts,
  };
}
