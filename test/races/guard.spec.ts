import { afterAll, beforeAll, expect, it } from 'vitest';
import pg from 'pg';
import { bootApp, type TestApp } from '../support/app.js';
import { TIMED_STATEMENTS } from '../support/timed-statements.js';
import { SimpleJob } from '../support/handlers.js';

// The single-runner guard: one pass at a time over all nodes, and no request for a pass is lost.

let one: TestApp;
let other: TestApp;
/** A session whose locks block a pass at a chosen point. */
let holder: pg.Client;
beforeAll(async () => {
  one = await bootApp({ providers: [SimpleJob] });
  other = await bootApp({ providers: [SimpleJob], database: one.database });
  holder = new pg.Client({ connectionString: one.database.url });
  await holder.connect();
});
afterAll(async () => {
  await holder.end();
  await other.close();
  await one.close();
});

/** Resolves when a backend waits for a lock of this session. A heartbeat does not count. */
const waitUntilBlocking = (session = holder) =>
  expect
    .poll(async () => {
      const { processID } = session as unknown as { processID: number };
      const waiting = await one.database.sql(
        `SELECT 1 FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)) AND NOT query ~ $2`,
        [processID, TIMED_STATEMENTS.source],
      );
      return waiting.length;
    })
    .toBeGreaterThan(0);

it('runJobEngine returns alreadyRunning on all nodes while a pass runs', async () => {
  await holder.query('BEGIN; LOCK TABLE bildad.job_queue_entries IN ACCESS EXCLUSIVE MODE');
  const pass = one.engine.runJobEngine();
  await waitUntilBlocking();

  const nothing = { start: [], expire: [], alreadyRunning: true };
  expect(await one.engine.runJobEngine()).toEqual(nothing);
  expect(await other.engine.runJobEngine()).toEqual(nothing);
  await holder.query('COMMIT');
  expect((await pass).alreadyRunning).toBe(false);
});

it('a pass claims again for a request of any process that comes after its claim', async () => {
  for (const requesting of [one, other]) {
    // The pass has claimed, and a run that another session inserts blocks it.
    const first = await one.engine.enqueueJob(SimpleJob, {});
    await holder.query('BEGIN');
    await holder.query(
      `INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
         job_context, available_at, timeout_at, expires_at)
       VALUES (0, 0, $1, 0, '', '', '{}', now(), now(), now())`,
      [first.jobRunIdentifier],
    );
    const pass = one.engine.runJobEngine();
    await waitUntilBlocking();

    const late = await requesting.engine.enqueueJob(SimpleJob, {});
    expect(await requesting.engine.runJobEngine()).toEqual({
      start: [],
      expire: [],
      alreadyRunning: true,
    });
    await holder.query('ROLLBACK');
    expect((await pass).start).toMatchObject([
      { ok: true, jobRun: { jobRunIdentifier: first.jobRunIdentifier } },
      { ok: true, jobRun: { jobRunIdentifier: late.jobRunIdentifier } },
    ]);
    await one.engine.waitForJob(late.jobRunIdentifier);
  }
});

it('a pass claims again for a request that comes while it releases the guard', async () => {
  await holder.query('BEGIN; LOCK TABLE bildad.job_queue_entries IN SHARE MODE');
  const pass = one.engine.runJobEngine();
  await waitUntilBlocking();
  const config = new pg.Client({ connectionString: one.database.url });
  await config.connect();
  await config.query(
    `BEGIN; SELECT 1 FROM bildad.job_configs WHERE name = 'default' FOR NO KEY UPDATE`,
  );
  await holder.query('COMMIT');
  await waitUntilBlocking(config);

  const late = await one.engine.enqueueJob(SimpleJob, {});
  expect((await one.engine.runJobEngine()).alreadyRunning).toBe(true);
  await config.query('COMMIT');
  await config.end();
  expect((await pass).start).toMatchObject([
    { ok: true, jobRun: { jobRunIdentifier: late.jobRunIdentifier } },
  ]);
  await one.engine.waitForJob(late.jobRunIdentifier);
});

it('the next pass takes over an expired guard with a new fencing number', async () => {
  await one.sql(
    `UPDATE bildad.job_configs SET guard_holder = 'dead', guard_expires_at = clock_timestamp() + interval '1 hour'`,
  );
  const before = await one.jobs.getJobConfig();
  expect((await one.engine.runJobEngine()).alreadyRunning).toBe(true);
  await one.sql(`UPDATE bildad.job_configs SET guard_expires_at = clock_timestamp()`);
  const passed = one.next('engine.pass');
  expect((await one.engine.runJobEngine()).alreadyRunning).toBe(false);
  expect(Number((await passed).term)).toBe(Number(before.guardTerm) + 1);
  expect(await one.jobs.getJobConfig()).toMatchObject({ guardExpiresAt: null });
});

it('a pass runs after the config row was deleted', async () => {
  await one.sql('DELETE FROM bildad.job_configs');
  expect((await one.engine.runJobEngine()).alreadyRunning).toBe(false);
});

it('a failed pass releases the guard, and the next one works', async () => {
  const entry = await one.engine.enqueueJob(SimpleJob, {});
  await one.sql('ALTER TABLE bildad.job_runs RENAME TO gone');
  await expect(one.engine.runJobEngine()).rejects.toThrow('job_runs');
  await one.sql('ALTER TABLE bildad.gone RENAME TO job_runs');
  expect((await one.engine.runJobEngine()).start).toHaveLength(1);
  await one.engine.waitForJob(entry.jobRunIdentifier);
});
