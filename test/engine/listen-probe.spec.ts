import { afterEach, beforeEach, expect, it } from 'vitest';
import type { EngineContext } from '../../src/database/engine-context.js';
import { ListeningConnection, ListenProbe } from '../../src/notifications/listening-connection.js';
import { NotificationBus } from '../../src/notifications/notification-bus.js';
import { CommitWatch } from '../../src/database/transactions/commit-watch.js';
import { WakeUps } from '../../src/notifications/wake-ups.js';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import type { PgClient } from '../../src/database/connection/driver.js';
import { listeningClient } from '../../src/notifications/notify.sql.js';
import { bootApp, type TestApp } from '../support/app.js';
import { gate } from '../support/gate.js';
import { SimpleJob } from '../support/handlers.js';

// A LISTEN without an error does not prove that notifications arrive.

let bildad: TestApp;
let engine: EngineContext;
let emitted: boolean[];
let client: PgClient;
let probe: ListenProbe;
let probes: number;
beforeEach(async () => {
  bildad = await bootApp({
    providers: [SimpleJob],
    options: { notify: false },
  });
  const { store, events, node, settings } = (bildad.engine as unknown as { bildad: BildadRuntime })
    .bildad;
  engine = { store, events, node, settings: { ...settings, notify: true } };
  emitted = [];
  bildad.events.on('engine.listening', ({ hears }) => emitted.push(hears));
  probe = new ListenProbe(engine, 500);
  client = listeningClient(bildad.dataSource, 5_000)!;
  client.on('error', () => undefined);
  probes = 0;
  client.on('notification', ({ payload }) => {
    if (payload?.includes('"probe"')) probes++;
    probe.receive(payload!);
  });
  await client.connect();
});
afterEach(async () => {
  probe.stop();
  await client.end();
  await bildad.close();
});

const query = (sql: string) => client.query(sql);
const listening = () => query('LISTEN "nestjs_bildad:bildad"');

it('a probe arrives through another connection, and nothing is emitted while that works', async () => {
  await listening();
  expect(await probe.check(client)).toBe(true);
  expect(probes).toBe(1);
  expect(emitted).toEqual([]);
});

it('a session that lost its LISTEN listens again', async () => {
  await listening();
  await query('UNLISTEN *');
  expect(await probe.check(client)).toBe(true);
  expect(await probe.check(client)).toBe(true);
  expect(emitted).toEqual([]);
});

it('one event reports that notifications do not arrive, and one that they arrive again', async () => {
  // PgBouncer in transaction mode does this.
  const direct = client.query.bind(client);
  client.query = (sql) => bildad.dataSource.query(sql);
  expect(await probe.check(client)).toBe(false);
  expect(await probe.check(client)).toBe(false);
  expect(emitted).toEqual([false]);
  client.query = direct;
  expect(await probe.check(client)).toBe(true);
  expect(emitted).toEqual([false, true]);
});

it('a probe wakes no other node, and a wake-up does', async () => {
  const bus = new NotificationBus(engine);
  const wakes: string[] = [];
  const woken = gate();
  new WakeUps(bus, new CommitWatch(bildad.dataSource)).start(() => {
    wakes.push('woken');
    if (wakes.length > 1) woken.open();
  });
  bus.listen();
  await listening();
  // The first wake-up is for jobs that were enqueued before the node listened.
  await expect.poll(() => wakes).toHaveLength(1);
  await expect.poll(() => probes).toBe(1);
  expect(await probe.check(client)).toBe(true);
  expect(wakes).toHaveLength(1);
  const due = JSON.stringify({ topic: 'due', from: 'another node', items: [null] });
  await bildad.sql(`SELECT pg_notify('nestjs_bildad:bildad', $1)`, [due]);
  await woken.opened;
  await bus.stop();
});

it('stop ends a pending check', async () => {
  const patient = new ListenProbe(engine, 3_600_000);
  const checking = patient.check(client);
  patient.stop();
  expect(await checking).toBe(false);
  expect(emitted).toEqual([]);
});

it('a connection that is stopped while it connects does not return', async () => {
  const received: string[] = [];
  const connection = new ListeningConnection(engine, {
    connected: () => received.push('connected'),
    receive: (payload) => received.push(payload),
  });
  connection.start();
  await connection.stop();
  connection.start();
  await query(`SELECT pg_notify('nestjs_bildad:bildad', 'x')`);
  expect(received).toEqual([]);
});
