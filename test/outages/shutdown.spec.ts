import type { Socket } from 'node:net';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// app.close() returns within its deadline, whatever the database does: drain, grace, five seconds for the last
// outcomes, five for wake-ups, two for the connections.

const DRAIN_MS = 500;
const GRACE_MS = 100;
const DEADLINE_MS = DRAIN_MS + GRACE_MS + 5_000 + 5_000 + 2_000;

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

let proxy: Proxy;
let bildad: TestApp;
beforeEach(async () => {
  GatedJob.arrivals = [];
  proxy = await startProxy(database.url);
  bildad = await bootApp({
    providers: [SimpleJob, GatedJob],
    database: { ...database, url: proxy.url },
    options: {
      tickInterval: 100,
      shutdown: { drainTimeout: DRAIN_MS, killGracePeriod: GRACE_MS },
    },
  });
  await bildad.engine.enqueueJob(SimpleJob, {});
});
afterEach(() => proxy.close());

async function closing(): Promise<number> {
  const from = performance.now();
  await bildad.app.close();
  return performance.now() - from;
}

it('nothing answers any more', async () => {
  await bildad.engine.enqueueAndRunJob(GatedJob, {});
  await GatedJob.arrival();
  proxy.blackhole();
  expect(await closing()).toBeLessThan(DEADLINE_MS);
});

it('nothing answers, a handler is deaf, and it is closed twice', async () => {
  await bildad.engine.enqueueAndRunJob(GatedJob, { deaf: true });
  const { door } = await GatedJob.arrival();
  proxy.blackhole();
  const [first, second] = await Promise.all([closing(), closing()]);
  expect(first).toBeLessThan(DEADLINE_MS);
  expect(second).toBeLessThan(DEADLINE_MS);
  door.open(null);
});

it("nothing answers, and statements of the host's wait on its own connections", async () => {
  const { dataSource } = bildad;
  // Two connections; a third one is being made.
  await Promise.all([
    dataSource.query('SELECT 1'),
    dataSource.query('SELECT 1'),
  ]);
  proxy.blackhole();
  const asked = Promise.all(
    [1, 2, 3].map(() => expect(dataSource.query('SELECT 1')).rejects.toThrow()),
  );
  expect(await closing()).toBeLessThan(DEADLINE_MS);
  await asked;
  expect(dataSource.isInitialized).toBe(false);
});

it("the host's idle connections are dead, and new ones work", async () => {
  const { master } = bildad.dataSource.driver as unknown as { master: pg.Pool };
  const client = await master.connect();
  const { stream } = (client as unknown as { connection: { stream: Socket } })
    .connection;
  client.release();
  proxy.blackholeOld();
  expect(await closing()).toBeLessThan(DEADLINE_MS);
  // No goodbye on its way to nobody, which would keep the process from ending.
  expect(stream.destroyed).toBe(true);
});

it('connections are refused', async () => {
  await bildad.engine.enqueueAndRunJob(GatedJob, {});
  await GatedJob.arrival();
  const lost = bildad.next('database.lost');
  await proxy.refuse();
  await lost;
  expect(await closing()).toBeLessThan(DEADLINE_MS);
});

it('backends are killed while it closes: what ran is given back all the same', async () => {
  const run = await bildad.engine.enqueueAndRunJob(GatedJob, { deaf: true });
  const { door, job } = await GatedJob.arrival();
  job.signal.addEventListener('abort', () => {
    void database
      .sql(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()`,
      )
      .then(() => door.open('at last'));
  });
  expect(await closing()).toBeLessThan(DEADLINE_MS);
  expect(
    await database.sql('SELECT status FROM bildad.job_runs WHERE id = $1', [
      run.id,
    ]),
  ).toEqual([{ status: 'DONE' }]);
});
