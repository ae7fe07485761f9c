import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { EngineContext } from '../../src/database/engine-context.js';
import type { Queryable } from '../../src/database/tables.js';
import { NotificationBus, InterestRegistry } from '../../src/notifications/notification-bus.js';
import { NotificationSender } from '../../src/notifications/notification-sender.js';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { bootApp, type TestApp } from '../support/app.js';

// Two buses of one schema: what one sends, the other receives.

let bildad: TestApp;
let engine: EngineContext;
let buses: NotificationBus[];
let errors: string[];
beforeEach(async () => {
  bildad = await bootApp({ options: { notify: false } });
  const { store, events, node, settings } = (bildad.engine as unknown as { bildad: BildadRuntime })
    .bildad;
  engine = { store, events, node, settings: { ...settings, notify: true } };
  buses = [];
  errors = [];
  events.on('engine.error', ({ doing, error }) =>
    errors.push(`${doing}: ${(error as Error).message}`),
  );
});
afterEach(async () => {
  await Promise.all(buses.map((bus) => bus.stop()));
  await bildad.close();
});

/** A bus with one topic, and the items that it received. */
function node(settings: Partial<EngineContext['settings']> = {}, maxPending = Infinity) {
  const bus = new NotificationBus({ ...engine, settings: { ...engine.settings, ...settings } });
  buses.push(bus);
  const items: unknown[] = [];
  const wanted: string[] = [];
  let connections = 0;
  bus.onConnected(() => connections++);
  const topic = bus.createTopic({
    name: 'test',
    doing: 'sending of the test',
    maxPending,
    receive: (item) => items.push(item),
    onWanted: (keys) => wanted.push(...keys),
  });
  return { bus, topic, items, wanted, connections: () => connections };
}

async function listeningNode() {
  const one = node();
  one.bus.listen();
  await expect.poll(one.connections).toBe(1);
  return one;
}

const listeners = () =>
  bildad.database.sql<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`,
  );

it('an item reaches the other nodes, and not its sender', async () => {
  const [one, other] = [await listeningNode(), await listeningNode()];
  one.topic.send({ from: 'one' });
  other.topic.send({ from: 'other' });
  await expect
    .poll(() => [one.items, other.items])
    .toEqual([[{ from: 'other' }], [{ from: 'one' }]]);
  expect(errors).toEqual([]);
});

it('a bus listens only when it is needed, and never with notify: false or in a host of isolated jobs', async () => {
  for (const settings of [{ notify: false }, { connections: 1 }]) {
    const { bus, topic } = node(settings);
    bus.listen();
    topic.addInterest('key')();
    expect(await listeners()).toEqual([]);
  }
  const { topic } = node();
  topic.send('an item');
  await topic.idle();
  expect(await listeners()).toEqual([]);
  topic.addInterest('key');
  await expect.poll(async () => (await listeners()).length).toBe(1);
});

it('interest reaches nodes that listen already, and nodes that begin to listen later', async () => {
  const early = await listeningNode();
  const interested = await listeningNode();
  const withdraw = interested.topic.addInterest('key');
  interested.topic.addInterest('other')();
  await expect.poll(() => early.topic.isWanted('key')).toBe(true);
  const late = await listeningNode();
  await expect.poll(() => late.topic.isWanted('key')).toBe(true);
  expect(new Set(late.wanted)).toEqual(new Set(['key']));
  expect(interested.topic.hasInterest).toBe(false);

  late.topic.forgetInterest('key');
  expect(late.topic.hasInterest).toBe(false);
  withdraw();
  const last = await listeningNode();
  last.topic.send('after its request to renew interest');
  await expect.poll(() => late.items).toEqual(['after its request to renew interest']);
  expect([late.topic.hasInterest, last.topic.hasInterest]).toEqual([false, false]);
});

it('interest that is not renewed expires, and the oldest is forgotten beyond the maximum', async () => {
  const registry = new InterestRegistry(2, 50);
  registry.add(['a', 'b', 'c']);
  expect(['a', 'b', 'c'].map((key) => registry.has(key))).toEqual([false, true, true]);
  registry.delete('b');
  expect(registry.isEmpty).toBe(false);
  await expect.poll(() => registry.isEmpty).toBe(true);
  expect(registry.has('c')).toBe(false);
});

it('many items are split into payloads; an item too long for a payload is dropped and reported', async () => {
  const [one, other] = [await listeningNode(), await listeningNode()];
  const circular: { self?: unknown } = {};
  circular.self = circular;
  const long = 'x'.repeat(7_000);
  const items = Array.from({ length: 50 }, (_none, n) => `${n} ${long}`);
  for (const item of ['x'.repeat(8_000), circular, ...items, 'short']) one.topic.send(item);
  await expect.poll(() => other.items.length).toBe(51);
  expect(other.items).toEqual([...items, 'short']);
  expect(errors).toEqual([
    'sending of the test: 2 notifications were dropped: too many, or too long',
  ]);
});

it('items beyond the limit of pending items are dropped', async () => {
  const other = await listeningNode();
  const { topic } = node({}, 10);
  for (let n = 0; n < 100; n++) topic.send(n);
  await topic.idle();
  await expect.poll(() => other.items).toEqual(Array.from({ length: 10 }, (_none, n) => n));
  expect(errors).toEqual([
    'sending of the test: 90 notifications were dropped: too many, or too long',
  ]);
});

it('a lost connection is replaced, and interest is renewed', async () => {
  const interested = await listeningNode();
  const [lost] = await listeners();
  interested.topic.addInterest('key');
  await interested.topic.idle();
  await bildad.database.sql('SELECT pg_terminate_backend($1)', [lost!.pid]);
  const other = await listeningNode();
  await expect.poll(interested.connections, { timeout: 5_000 }).toBe(2);
  await expect.poll(() => other.topic.isWanted('key')).toBe(true);
  expect(errors).toEqual([
    expect.stringMatching(/^listening for notifications of other nodes: terminating connection/),
  ]);
});

it('malformed payloads are ignored', async () => {
  const one = await listeningNode();
  const client = new pg.Client({ connectionString: bildad.database.url });
  await client.connect();
  const malformed = [
    '',
    '{',
    'null',
    '7',
    '{}',
    '{"topic":"test"}',
    '{"topic":7,"from":"x"}',
  ].concat(
    [{ items: 7 }, { interest: 7 }, { interest: [7, null] }, { topic: '__proto__' }].map(
      (payload) => JSON.stringify({ topic: 'test', from: 'x', ...payload }),
    ),
  );
  for (const payload of [
    ...malformed,
    JSON.stringify({ topic: 'test', from: 'x', items: ['last'] }),
  ])
    await client.query(`SELECT pg_notify('nestjs_bildad:bildad', $1)`, [payload]);
  await client.end();
  await expect.poll(() => one.items).toEqual(['last']);
  expect([one.wanted, errors]).toEqual([[], []]);
});

it('an item is sent at whichever moment it arrives, during another statement or right after it', async () => {
  let sent: string[] = [];
  const query = (async (_sql: string, [, payloads]: [unknown, string[]]) => {
    sent.push(...payloads);
    return [];
  }) as unknown as Queryable['query'];
  const store = { ...engine.store, db: { query } } as unknown as EngineContext['store'];
  const sender = new NotificationSender({ ...engine, store }, { topic: 'test' }, 'items', {});
  for (let microtasks = 0; microtasks < 40; microtasks++) {
    sent = [];
    sender.send('first');
    for (let n = 0; n < microtasks; n++) await Promise.resolve();
    sender.send(`after ${microtasks}`);
    await sender.idle();
    expect(sent.join()).toContain(`"after ${microtasks}"`);
  }
});
