import { describe, expect, it } from 'vitest';
import {
  ExtensionPoints,
  type AroundEnqueue,
  type AroundRun,
} from '../../src/lifecycle/extension-points.js';
import { JobEvents } from '../../src/job/events.js';

describe('an extension point', () => {
  it('active is undefined without a registration', () => {
    const { passSteps } = new ExtensionPoints();
    expect(passSteps.active).toBeUndefined();
    const unregister = passSteps.register('a', { name: 'a', every: 0, run: async () => {} });
    expect(passSteps.active?.map(({ name }) => name)).toEqual(['a']);
    unregister();
    expect(passSteps.active).toBeUndefined();
  });

  it('a name is rejected twice and accepted again after its removal', () => {
    const { onFinish } = new ExtensionPoints();
    const unregister = onFinish.register('limits', { sqlFunction: 'f' });
    expect(() => onFinish.register('limits', { sqlFunction: 'f' })).toThrow(
      "extension point onFinish already has a registration of this name, got 'limits'",
    );
    unregister();
    const later = { sqlFunction: 'g' };
    onFinish.register('limits', later);
    unregister();
    expect(onFinish.active).toEqual(['g']);
  });

  it('a caller iterates over an unchanged list while registrations change', () => {
    const { afterClaim } = new ExtensionPoints();
    const calls: string[] = [];
    const removeFirst = afterClaim.register('first', () => {
      calls.push('first');
      removeFirst();
    });
    afterClaim.register('second', () => void calls.push('second'));
    for (const hook of afterClaim.active!) hook([], 1);
    for (const hook of afterClaim.active!) hook([], 1);
    expect(calls).toEqual(['first', 'second', 'second']);
  });
});

it('the first registration of aroundRun is the outermost', async () => {
  const { aroundRun } = new ExtensionPoints();
  const order: string[] = [];
  const hook =
    (name: string): AroundRun =>
    async (_process, _handler, next) => {
      order.push(`${name} before`);
      await next();
      order.push(`${name} after`);
    };
  aroundRun.register('a', hook('a'));
  const removeB = aroundRun.register('b', hook('b'));
  const run = () =>
    aroundRun.active!(undefined as never, undefined as never, async () => void order.push('run'));
  await run();
  expect(order.splice(0)).toEqual(['a before', 'b before', 'run', 'b after', 'a after']);
  removeB();
  await run();
  expect(order).toEqual(['a before', 'run', 'a after']);
});

it('removed registrations leave no layer around an enqueue', async () => {
  const { aroundEnqueue } = new ExtensionPoints();
  const hook: AroundEnqueue = (_call, next) => next();
  aroundEnqueue.register('stays', hook);
  for (let i = 0; i < 20_000; i++) aroundEnqueue.register('metrics', hook)();
  const call = { templateCode: 'A', bulk: false };
  await expect(
    aroundEnqueue.active!(call, async () => ({ jobRunIdentifier: 'x' })),
  ).resolves.toEqual({ jobRunIdentifier: 'x' });
});

it('any number of taps receive each event until they are removed', () => {
  const events = new JobEvents();
  const received: string[] = [];
  const tap = (event: string) => void received.push(event);
  const removeFirst = events.tap(tap);
  const removeSecond = events.tap(tap);
  events.emit('database.restored', { outageMs: 1 });
  removeFirst();
  removeFirst();
  events.emit('engine.listening', { hears: true });
  removeSecond();
  events.emit('database.restored', { outageMs: 1 });
  expect(received).toEqual(['database.restored', 'database.restored', 'engine.listening']);
});
