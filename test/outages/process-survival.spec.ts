import { afterAll, beforeAll, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { startWorker } from '../support/worker.js';

// No failure of the database ends the process, which an unhandled rejection or an unhandled 'error'
// event would.

let database: TestDatabase;
let proxy: Proxy;
beforeAll(async () => {
  database = await createDatabase();
  proxy = await startProxy(database.url);
});
afterAll(async () => {
  await proxy.close();
  await database.drop();
});

let inserted = 0;
const enqueue = (n: number) => {
  inserted += n;
  return database.sql(
    `INSERT INTO bildad.job_queue_entries (job_template_id, job_run_identifier, priority, timeout_ms, max_retries, job_context, run_at)
     SELECT id, gen_random_uuid(), 0, 60000, 0, '{}', clock_timestamp()
     FROM bildad.job_templates, generate_series(1, $1::int) WHERE code = 'FAST'`,
    [n],
  );
};
const allDone = () =>
  expect
    .poll(
      () =>
        database
          .sql<{
            done: number;
          }>(`SELECT count(*)::int AS done FROM bildad.job_runs WHERE result = 'SUCCEEDED'`)
          .then(([row]) => row!.done),
      { timeout: 15_000 },
    )
    .toBe(inserted);
const killBackends = () =>
  database.sql(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()`,
  );

it('the process survives terminated backends and refused, cut and black-holed connections, runs all jobs and ends cleanly', async () => {
  const worker = await startWorker(proxy.url, { QUERY_TIMEOUT: '1s' });
  await enqueue(500);
  await allDone();
  await database.sql('UPDATE bildad.job_configs SET lease_ms = 2000');
  for (let round = 0; round < 10; round++) {
    await enqueue(200);
    await killBackends();
  }
  await allDone();
  const attempts = proxy.attempts.length;
  await enqueue(200);
  await proxy.refuse();
  await proxy.pass();
  await expect.poll(() => proxy.attempts.length).toBeGreaterThan(attempts);
  await allDone();
  await enqueue(500);
  await proxy.cutAfter('finish_job_runs');
  await allDone();
  await enqueue(500);
  proxy.blackholeOpen();
  await allDone();
  proxy.blackhole();
  await enqueue(10);
  const before = proxy.attempts.length;
  await expect.poll(() => proxy.attempts.length).toBeGreaterThan(before + 1);
  await proxy.pass();
  // Connections made while the server did not respond are still black-holed.
  await allDone();
  // An uncaught exception would have ended it with another code.
  expect(await worker.terminate()).toBe('SIGTERM');
});
