import { checkContention } from './check-contention.js';
import { checkGuard } from './check-guard.js';
import { checkJobs } from './check-jobs.js';
import { checkLiveness } from './check-liveness.js';
import { checkOverlaps } from './check-overlaps.js';
import { checkProcesses } from './check-processes.js';
import type { History } from './history.js';
import { Timeline } from './timeline.js';

/** The invariants of docs/reliability.md. `jitter`: nodes that wait do not wait for the same time. */
export type Invariant =
  | 'I1'
  | 'I2'
  | 'I3'
  | 'I4'
  | 'I5'
  | 'I6'
  | 'I7'
  | 'I8'
  | 'I9'
  | 'I10'
  | 'I11'
  | 'I12'
  | 'I15'
  | 'I16'
  | 'jitter';

export interface Violation {
  invariant: Invariant;
  what: string;
  /** The job's identifier, where it is about a job. */
  id?: string;
}

/** What a history shows that must not be. A pure function: nothing is looked up. */
export function check(history: History): Violation[] {
  const timeline = new Timeline(history);
  return [
    checkJobs,
    checkOverlaps,
    checkLiveness,
    checkProcesses,
    checkGuard,
    checkContention,
  ].flatMap((one) => one(timeline));
}
