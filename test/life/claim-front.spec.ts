import { expect, it } from 'vitest';
import { ClaimFront } from '../../src/lifecycle/claim/claim-resume-point.js';

const last = { id: '7', priority: 5 };

it('looks at the whole queue for each pass, and behind the last claim between them', () => {
  const front = new ClaimFront();
  expect(front.from('behind')).toBeNull();
  front.reached(last, null, 3, 1);
  expect(front.from('behind')).toBe(last);
  expect(front.from('affordable')).toBeNull();
});

it('looks at the whole queue less often where that takes long, but at once for who asks', () => {
  const front = new ClaimFront();
  front.reached(last, null, 60_000, 1);
  expect(front.from('affordable')).toBe(last);
  front.reached({ id: '9', priority: 5 }, last, 3, 1);
  expect(front.from('affordable')).toEqual({ id: '9', priority: 5 });
  expect(front.from('whole')).toBeNull();
  front.reached(last, null, 3, 1);
  expect(front.from('affordable')).toBeNull();
});

it('never moves back', () => {
  const front = new ClaimFront();
  front.reached({ id: '10', priority: 5 }, null, 3, 1);
  front.reached({ id: '9', priority: 5 }, null, 3, 1);
  front.reached({ id: '99', priority: 1 }, null, 3, 1);
  front.reached(null, null, 3, 1);
  expect(front.from('behind')).toEqual({ id: '10', priority: 5 });
});

it('takes what claiming many takes for no reason to look less often', () => {
  const front = new ClaimFront();
  front.reached(last, null, 500, 1_000);
  expect(front.from('affordable')).toBeNull();
});

it('looks at the whole queue once entries came back to it', () => {
  const front = new ClaimFront();
  front.reached(last, null, 60_000, 0);
  front.lookBack();
  expect(front.from('affordable')).toBeNull();
});

it('looks for what came back while a dear look was under way', () => {
  const front = new ClaimFront();
  const from = front.from('affordable');
  front.lookBack();
  front.reached(last, from, 60_000, 0);
  expect(front.from('affordable')).toBeNull();
  front.reached(last, null, 60_000, 0);
  expect(front.from('affordable')).toBe(last);
});
