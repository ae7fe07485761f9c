import { expect, it } from 'vitest';
import { ClaimResumePoint } from '../../src/lifecycle/claim/claim-resume-point.js';

const last = { id: '7', priority: 5 };

it('starts a pass at the head, and a claim between passes at the resume point', () => {
  const point = new ClaimResumePoint();
  expect(point.startFrom('resumePoint')).toBeNull();
  point.record(last, null, 3, 1);
  expect(point.startFrom('resumePoint')).toBe(last);
  expect(point.startFrom('headIfCheap')).toBeNull();
});

it('starts at the head less often while that is expensive, but at once when requested', () => {
  const point = new ClaimResumePoint();
  point.record(last, null, 60_000, 1);
  expect(point.startFrom('headIfCheap')).toBe(last);
  point.record({ id: '9', priority: 5 }, last, 3, 1);
  expect(point.startFrom('headIfCheap')).toEqual({ id: '9', priority: 5 });
  expect(point.startFrom('head')).toBeNull();
  point.record(last, null, 3, 1);
  expect(point.startFrom('headIfCheap')).toBeNull();
});

it('never moves back', () => {
  const point = new ClaimResumePoint();
  point.record({ id: '10', priority: 5 }, null, 3, 1);
  point.record({ id: '9', priority: 5 }, null, 3, 1);
  point.record({ id: '99', priority: 1 }, null, 3, 1);
  point.record(null, null, 3, 1);
  expect(point.startFrom('resumePoint')).toEqual({ id: '10', priority: 5 });
});

it('does not count the time of claiming many entries as an expensive scan', () => {
  const point = new ClaimResumePoint();
  point.record(last, null, 500, 1_000);
  expect(point.startFrom('headIfCheap')).toBeNull();
});

it('starts at the head after entries were released', () => {
  const point = new ClaimResumePoint();
  point.record(last, null, 60_000, 0);
  point.requireHead();
  expect(point.startFrom('headIfCheap')).toBeNull();
});

it('starts at the head for entries that were released during an expensive scan', () => {
  const point = new ClaimResumePoint();
  const startedBehind = point.startFrom('headIfCheap');
  point.requireHead();
  point.record(last, startedBehind, 60_000, 0);
  expect(point.startFrom('headIfCheap')).toBeNull();
  point.record(last, null, 60_000, 0);
  expect(point.startFrom('headIfCheap')).toBe(last);
});
