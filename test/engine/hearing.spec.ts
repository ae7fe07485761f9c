import { afterEach, beforeEach, expect, it } from 'vitest';
import { Hearing } from '../../src/notifications/listen-probe.js';
import { Listener } from '../../src/notifications/listener.js';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import type { PgClient } from '../../src/database/connection/driver.js';
import { listeningClient } from '../../src/notifications/notify.sql.js';
import { bootApp, type TestApp } from '../support/app.js';
import { gate } from '../support/gate.js';
import { SimpleJob } from '../support/handlers.js';

// That nobody refused a LISTEN does not mean that anything is heard.

let bildad: TestApp;
let runtime: BildadRuntime;
let told: boolean[];
let client: PgClient;
let hearing: Hearing;
let probes: number;
beforeEach(async () => {
  bildad = await bootApp({
    providers: [SimpleJob],
    options: { notify: false },
  });
  ({ bildad: runtime } = bildad.engine as unknown as { bildad: BildadRuntime });
  told = [];
  bildad.events.on('engine.listening', ({ hears }) => told.push(hears));
  hearing = new Hearing(runtime.store, bildad.events, 500);
  client = listeningClient(bildad.dataSource, 5_000)!;
  client.on('error', () => undefined);
  probes = 0;
  client.on('notification', ({ payload }) => {
    if (hearing.took(payload)) probes++;
  });
  await client.connect();
});
afterEach(async () => {
  hearing.close();
  await client.end();
  await bildad.close();
});

const query = (sql: string) => client.query(sql);
const listening = () => query('LISTEN "nestjs_bildad:bildad"');

it('hears itself by way of another connection, and says nothing of what is as it should', async () => {
  await listening();
  expect(await hearing.check(client)).toBe(true);
  expect(probes).toBe(1);
  expect(told).toEqual([]);
});

it('a session that somebody told to UNLISTEN listens again', async () => {
  await listening();
  await query('UNLISTEN *');
  expect(await hearing.check(client)).toBe(true);
  expect(await hearing.check(client)).toBe(true);
  expect(told).toEqual([]);
});

it('where LISTEN goes to another session, says so once, and once when it is over', async () => {
  // What PgBouncer does in transaction mode.
  const direct = client.query.bind(client);
  client.query = (sql) => bildad.dataSource.query(sql);
  expect(await hearing.check(client)).toBe(false);
  expect(await hearing.check(client)).toBe(false);
  expect(told).toEqual([false]);
  client.query = direct;
  expect(await hearing.check(client)).toBe(true);
  expect(told).toEqual([false, true]);
});

it('a probe of one node wakes no other, and a wake-up does', async () => {
  const { store, events, node, waits, news } = runtime;
  const wakes: string[] = [];
  const woken = gate();
  const other = new Listener(store, events, node, waits, news);
  other.start(() => {
    wakes.push('woken');
    if (wakes.length > 1) woken.open();
  });
  await listening();
  // The first is for what came before it listened.
  await expect.poll(() => wakes).toHaveLength(1);
  await expect.poll(() => probes).toBe(1);
  expect(await hearing.check(client)).toBe(true);
  expect(wakes).toHaveLength(1);
  await bildad.sql(`SELECT pg_notify('nestjs_bildad:bildad', 'another node')`);
  await woken.opened;
  await other.stop();
});

it('closing ends a check that waits', async () => {
  const patient = new Hearing(runtime.store, bildad.events, 3_600_000);
  const checking = patient.check(client);
  patient.close();
  expect(await checking).toBe(false);
  expect(told).toEqual([]);
});
