import { expect, it } from 'vitest';
import { JobUpdates, truncateAfter } from '../../src/control/job-updates.js';
import type { WatchedRun } from '../../src/control/job-states.sql.js';

// Whose last words are waited for before ends are told.

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
  ['of none: he comes when it is over', undefined, [run(0, 'DONE')], null],
  ['of none: it goes on', '0.1.0', [run(0, 'RUNNING')], null],
  ['of none: he had that end', '0.2.3', [run(0, 'DONE')], null],
  ['of a run that he saw', '0.1.3', [run(0, 'DONE')], 0],
  ['of one that he saw nothing of', '0.0.0', [run(0, 'DONE')], 0],
  ['of the one after', '0.2.3', [run(0, 'DONE'), run(1, 'DONE')], 1],
])('%s', (_which, after, runs, ended) => {
  expect(new JobUpdates('j', after).newlyEnded(state(...runs))).toBe(ended);
});

it('a run that ended while they were waited for is told by the next look', () => {
  const both = state(run(0, 'DONE'), run(1, 'DONE'));
  expect(truncateAfter(1, both)).toBe(both);
  expect(truncateAfter(0, both)).toEqual({ ...both, runs: [both.runs[0]], more: true });
  const goesOn = state(run(0, 'DONE'), run(1, 'RUNNING'));
  expect(truncateAfter(0, goesOn)).toBe(goesOn);
});
