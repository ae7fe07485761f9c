import { expect, it } from 'vitest';
import { JobUpdates, truncateAfter } from '../../src/control/job-updates.js';
import type { WatchedRun } from '../../src/control/job-states.sql.js';

// Which run's notes a watcher waits for before it reports the run's end.

const run = (retry: number, status: 'RUNNING' | 'DONE'): WatchedRun => ({
  id: `${retry + 1}`,
  retry,
  status,
  result: status === 'DONE' ? 'FAILED' : null,
  reason: null,
  startedAt: null,
  endedAt: null,
  progress: null,
  progressAt: null,
  output: null,
});
const state = (...runs: WatchedRun[]) => ({ entry: null, runs, more: false });

it.each([
  ['none for a watcher that starts after the end', undefined, [run(0, 'DONE')], null],
  ['none while the run continues', '0.1.0', [run(0, 'RUNNING')], null],
  ['none for a watcher that has the end', '0.2.3', [run(0, 'DONE')], null],
  ['the run that the watcher saw running', '0.1.3', [run(0, 'DONE')], 0],
  ['the run after a queued update', '0.0.0', [run(0, 'DONE')], 0],
  ['the next run after an end', '0.2.3', [run(0, 'DONE'), run(1, 'DONE')], 1],
])('newlyEnded returns %s', (_which, after, runs, ended) => {
  expect(new JobUpdates('j', after).newlyEnded(state(...runs))).toBe(ended);
});

it('a run that ends during the wait is reported by the next read', () => {
  const both = state(run(0, 'DONE'), run(1, 'DONE'));
  expect(truncateAfter(1, both)).toBe(both);
  expect(truncateAfter(0, both)).toEqual({ ...both, runs: [both.runs[0]], more: true });
  const continues = state(run(0, 'DONE'), run(1, 'RUNNING'));
  expect(truncateAfter(0, continues)).toBe(continues);
});
