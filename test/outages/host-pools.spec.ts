import type pg from 'pg';
import { DataSource } from 'typeorm';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { HostPools } from '../../src/database/connection/host-pools.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// At shutdown, only dead connections of the host's DataSource are closed.

const MS = 1_000;

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

let proxy: Proxy;
let dataSource: DataSource;
let pools: HostPools;
beforeEach(async () => {
  proxy = await startProxy(database.url);
  dataSource = await new DataSource({ type: 'postgres', url: proxy.url }).initialize();
  pools = new HostPools(dataSource);
  pools.watch();
});
afterEach(async () => {
  await dataSource.destroy();
  await proxy.close();
});

const pool = () => (dataSource.driver as unknown as { master: pg.Pool }).master;
/** A statement that the server runs until the test releases it. */
async function hold(): Promise<{ ended: Promise<unknown>; release: () => Promise<unknown> }> {
  const runner = dataSource.createQueryRunner();
  const [{ pid }] = (await runner.query('SELECT pg_backend_pid() AS pid')) as [{ pid: number }];
  const ended = runner.query('SELECT pg_sleep(600)').catch(async (error: { code?: string }) => {
    await runner.release();
    return error.code;
  });
  await expect
    .poll(() =>
      database.sql(`SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'`, [pid]),
    )
    .toHaveLength(1);
  return { ended, release: () => database.sql('SELECT pg_cancel_backend($1)', [pid]) };
}

it('a running statement is not ended while the server responds', async () => {
  const { ended, release } = await hold();
  await pools.destroyDead(MS);
  await release();
  expect(await ended).toBe('57014');
});

it('the statement on a dead connection is ended, and the running one is not', async () => {
  await dataSource.query('SELECT 1');
  proxy.blackholeOpen();
  const dead = expect(dataSource.query('SELECT 1')).rejects.toThrow('Connection terminated');
  const { ended, release } = await hold();
  await pools.destroyDead(MS);
  await dead;
  await release();
  expect(await ended).toBe('57014');
});

it('dead idle connections are closed, and live ones stay open', async () => {
  await dataSource.query('SELECT 1');
  proxy.blackholeOpen();
  await pools.destroyDead(MS);
  expect(pool().totalCount).toBe(0);
  await dataSource.query('SELECT 1');
  await pools.destroyDead(MS);
  expect(pool().totalCount).toBe(1);
});

it('all connections are closed when the server does not respond on a new one', async () => {
  const { ended } = await hold();
  proxy.blackhole();
  const opening = expect(dataSource.query('SELECT 1')).rejects.toThrow('Connection terminated');
  await pools.destroyDead(MS);
  await opening;
  expect(await ended).not.toBe('57014');
  await database.sql(
    `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'`,
  );
});

it('engines on one DataSource share its listeners', () => {
  const listeners = () => pool().listenerCount('acquire') + pool().listenerCount('release');
  const before = listeners();
  for (let engine = 0; engine < 12; engine++) new HostPools(dataSource).watch();
  expect(listeners()).toBe(before);
});
