import { BildadDatabaseError } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { lockRows } from '../support/lock.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// A keyed job is inserted once, even if the answer is lost. A locked key delays only callers with that key.

let database: TestDatabase;
let proxy: Proxy;
/** Connects through the proxy. */
let bildad: TestApp;
let elsewhere: TestApp;
beforeAll(async () => {
  database = await createDatabase();
  proxy = await startProxy(database.url);
  elsewhere = await bootApp({ providers: [SimpleJob], database });
});
beforeEach(async () => {
  bildad = await bootApp({
    providers: [SimpleJob],
    database: { ...database, url: proxy.url },
    options: { queryTimeout: 1_000 },
  });
  await bildad.engine.enqueueJob(SimpleJob, {});
  await database.sql('TRUNCATE bildad.job_queue_entries, bildad.job_runs, bildad.job_keys');
});
afterEach(async () => {
  await proxy.pass();
  await bildad.app.close();
});
afterAll(async () => {
  await elsewhere.app.close();
  await proxy.close();
  await database.drop();
});

const add = (say: string, onConflict?: 'throw' | 'replace') =>
  bildad.engine.enqueueJob(
    SimpleJob,
    { say },
    { unique: { key: 'k', ...(onConflict && { onConflict }) } },
  );

it('a keyed enqueue whose answer is lost returns its own job, not a duplicate', async () => {
  const cut = proxy.cutAfter('enqueue_keyed_job');
  const entry = await add('once', 'throw');
  await cut;
  expect(entry).toMatchObject({
    deduplicated: false,
    jobContext: { say: 'once' },
  });
  expect(await bildad.jobs.listAllJobsInTheQueue()).toMatchObject([{ id: entry.id }]);
});

it('a keyed enqueue whose answer is lost returns its job even after the job ended and the key has a new holder', async () => {
  const cut = proxy.cutAfter('enqueue_keyed_job');
  const adding = add('quick', 'throw');
  await cut.then(() => proxy.refuse());
  const [quick] = await elsewhere.jobs.listAllJobsInTheQueue();
  await elsewhere.engine.runJobEngine();
  await elsewhere.engine.waitForJob(quick!.jobRunIdentifier);
  const next = await elsewhere.engine.enqueueJob(SimpleJob, {}, { unique: { key: 'k' } });
  await proxy.pass();
  expect(await adding).toMatchObject({
    id: quick!.id,
    deduplicated: false,
    status: 'DONE',
  });
  expect(await elsewhere.jobs.listAllJobsInTheQueue()).toMatchObject([{ id: next.id }]);
});

it('a replacement whose answer is lost is repeated without further effect', async () => {
  const first = await add('first');
  const cut = proxy.cutAfter('enqueue_keyed_job');
  const second = await add('second', 'replace');
  await cut;
  expect(second).toMatchObject({
    id: first.id,
    jobContext: { say: 'second' },
    deduplicated: true,
  });
});

it('a key that a transaction locks leaves connections for other work, and the database does not count as lost', async () => {
  const first = await add('first');
  const lostEvents: unknown[] = [];
  bildad.events.on('database.lost', (event) => lostEvents.push(event));
  const release = await lockRows(elsewhere, 'SELECT 1 FROM bildad.job_keys WHERE key = $1', ['k']);
  const waiting = Promise.all(Array.from({ length: 20 }, (_none, n) => add(`waiting ${n}`)));
  const other = await bildad.engine.enqueueJob(SimpleJob, { say: 'other' });
  await bildad.engine.runJobEngine();
  await bildad.engine.waitForJob(other.jobRunIdentifier);
  await release();
  // The first job has run in the meantime, so one of the waiting callers enqueues the next one.
  const entries = await waiting;
  expect(new Set(entries.map(({ id }) => id)).size).toBe(1);
  expect(entries[0]!.id).not.toBe(first.id);
  expect(entries.filter(({ deduplicated }) => !deduplicated)).toHaveLength(1);
  expect(lostEvents).toEqual([]);
});

it('an enqueue whose key is locked for too long fails with an error that names the lock', async () => {
  await add('first');
  const release = await lockRows(elsewhere, 'SELECT 1 FROM bildad.job_keys WHERE key = $1', ['k']);
  const error: unknown = await add('other').catch((thrown: unknown) => thrown);
  await release();
  expect(error).toBeInstanceOf(BildadDatabaseError);
  expect((error as Error).message).toMatch(
    /unique key .* locked by another transaction for more than 2000 ms/,
  );
});

it('concurrent callers of one key all succeed where transactions are serializable by default', async () => {
  await database.sql(
    `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$`,
  );
  const apps = await Promise.all(
    [1, 2, 3].map(() => bootApp({ providers: [SimpleJob], database })),
  );
  const entries = await Promise.all(
    apps.flatMap(({ engine }) =>
      Array.from({ length: 20 }, (_none, n) =>
        engine.enqueueJob(
          SimpleJob,
          { say: n },
          { unique: { key: 'serial', onConflict: 'replace' } },
        ),
      ),
    ),
  );
  expect(new Set(entries.map(({ id }) => id)).size).toBe(1);
  expect(entries.filter(({ deduplicated }) => !deduplicated)).toHaveLength(1);
  await Promise.all(apps.map((app) => app.close()));
});
