import { expect, it } from 'vitest';
import { isContention, schedule } from './schedule.js';
import { plannedJob } from './workload.js';

const workers = ['w1', 'w2', 'w3'];
const planned = (seed: number) => schedule({ seed, ms: 600_000, workers });

it('is a function of the seed', () => {
  expect(planned(1)).toEqual(planned(1));
  expect(planned(1)).not.toEqual(planned(2));
});

it('has one fault for each target at a time, and an end for each', () => {
  const last = new Map<string, number>();
  for (const { at, lasts, target } of planned(3)) {
    expect(at).toBeGreaterThanOrEqual(last.get(target) ?? 0);
    expect(lasts).toBeLessThanOrEqual(10_000);
    last.set(target, at + lasts);
  }
});

it('has every kind of fault, on every target, within ten minutes', () => {
  const kinds = new Set(planned(4).map(({ kind }) => kind));
  expect([...kinds].toSorted()).toEqual(
    [
      'backends',
      'blackhole',
      'blackholeEstablished',
      'crash',
      'cut',
      'delay',
      'deploy',
      'distance',
      'dropAnswers',
      'freeze',
      'halfClose',
      'kill',
      'lock',
      'lockEntries',
      'lockKeys',
      'lockNodes',
      'lockRuns',
      'lockTemplates',
      'refuse',
      'reset',
      'restart',
      'xmin',
    ].toSorted(),
  );
  expect(new Set(planned(4).map(({ target }) => target))).toEqual(
    new Set([
      ...workers,
      'client',
      'database',
      'xmin',
      'lockRuns',
      'lockEntries',
      'lockTemplates',
      'lockKeys',
    ]),
  );
});

it('begins with contention alone', () => {
  const faults = schedule({ seed: 5, ms: 60_000, contentionMs: 30_000, workers });
  expect(faults.filter(({ at, kind }) => at < 30_000 && !isContention(kind))).toEqual([]);
  expect(faults.filter(({ at, kind }) => at >= 30_000 && !isContention(kind))).not.toEqual([]);
});

it('plans the same job for the same number', () => {
  expect(plannedJob(7, 1, 42)).toEqual(plannedJob(7, 1, 42));
  const ids = Array.from({ length: 100 }, (_none, n) => plannedJob(7, 1, n).id);
  expect(new Set(ids).size).toBe(100);
});
