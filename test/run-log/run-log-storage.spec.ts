import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { writeNotes } from '../../src/features/run-log/run-log.sql.js';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { GatedJob } from '../support/handlers.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { brief, until } from '../support/watch.js';

// Notes are deleted when they expire or their runs are deleted. An outage delays their writes.

let database: TestDatabase;
let proxy: Proxy;
let bildad: TestApp;
beforeEach(async () => {
  GatedJob.arrivals = [];
  database = await createDatabase();
  proxy = await startProxy(database.url);
  bildad = await boot();
});
afterEach(async () => {
  await bildad.close();
  await proxy.close();
  await database.drop();
});

const boot = () =>
  bootApp({
    providers: [GatedJob],
    database: { ...database, url: proxy.url },
    options: { queryTimeout: '1s' },
  });

async function begin(jobRunIdentifier: string) {
  await bildad.engine.enqueueAndRunJob(GatedJob, {}, { jobRunIdentifier });
  return GatedJob.arrival();
}

const storedRuns = async () =>
  (
    await database.sql<{ run: string }>(
      'SELECT job_run_id::text AS run FROM bildad.job_run_notes ORDER BY job_run_id',
    )
  ).map(({ run }) => run);

it('a pass deletes expired notes and notes of deleted runs', async () => {
  const runs = [await begin('a'), await begin('b'), await begin('c')];
  for (const { job } of runs) job.progress(0.5);
  await expect.poll(storedRuns).toHaveLength(3);
  for (const { job, door } of runs) {
    door.open(null);
    await bildad.engine.waitForJob(job.jobRunIdentifier);
  }
  const [old, gone, stays] = runs.map(({ job }) => job.jobRunId);
  expect(await storedRuns()).toEqual([old, gone, stays]);
  await database.sql('UPDATE bildad.job_run_notes SET keep_until = now() WHERE job_run_id = $1', [
    old,
  ]);
  await database.sql('DELETE FROM bildad.job_runs WHERE id = $1', [gone]);
  await bildad.jobs.updateJobConfig({ leaseMs: 1_000 });
  await expect
    .poll(
      async () => {
        await bildad.engine.runJobEngine();
        return storedRuns();
      },
      { timeout: 5_000 },
    )
    .toEqual([gone, stays]);
  await database.sql("UPDATE bildad.job_run_notes SET at = at - interval '2 hours'");
  await expect
    .poll(
      async () => {
        await bildad.engine.runJobEngine();
        return storedRuns();
      },
      { timeout: 5_000 },
    )
    .toEqual([stays]);
});

it('reports during an outage are written after it, and watchers receive them', async () => {
  const { job, door } = await begin('outage');
  const seen: string[] = [];
  const watched = until(bildad.jobs.watch('outage'), (update) => {
    seen.push(brief(update));
    return false;
  });
  await expect.poll(() => seen).toEqual(['running 0']);
  const lost = bildad.next('database.lost');
  await proxy.refuse();
  job.stream('during the outage');
  job.progress(0.7, 'during the outage');
  await lost;
  expect(await database.sql('SELECT 1 FROM bildad.job_run_notes')).toEqual([]);
  await proxy.pass();
  await expect
    .poll(() => seen, { timeout: 10_000 })
    .toEqual(['running 0', 'progress 0.7 during the outage', 'chunk "during the outage"']);
  door.open(null);
  await watched;
  expect(seen.at(-1)).toBe('end 0 SUCCEEDED');
});

it('notes that cannot be written are reported once and fail no job', async () => {
  const errors: string[] = [];
  bildad.events.on('engine.error', ({ doing }) => errors.push(doing));
  await database.sql('DROP TABLE bildad.job_run_notes');
  const { job, door } = await begin('refused');
  job.progress(0.1);
  await expect.poll(() => errors).toEqual(['writing progress, log lines and output of jobs']);
  job.log('lost');
  door.open(Promise.reject(new Error('no')));
  await bildad.next('run.finished');
  const other = await begin('other');
  other.job.progress(0.1);
  other.door.open('done');
  const run = await bildad.engine.waitForJob('other');
  expect(run.output).toBe('done');
  expect(errors).toHaveLength(1);
});

it('notes that the database refuses temporarily are written later', async () => {
  await bildad.close();
  const [row] = await database.sql<{ name: string }>('SELECT current_database() AS name');
  await database.sql(`ALTER DATABASE ${row!.name} SET lock_timeout = '50ms'`);
  bildad = await boot();
  const { job, door } = await begin('locked');
  const locker = new pg.Client({ connectionString: database.url });
  await locker.connect();
  await locker.query('BEGIN');
  await locker.query('LOCK TABLE bildad.job_run_notes');
  const refused = bildad.next('engine.error');
  job.log('a line');
  await bildad.engine.failJob({ id: job.jobRunId }, new Error('no'));
  expect((await refused).doing).toBe('writing progress, log lines and output of jobs');
  await locker.end();
  await expect
    .poll(() => bildad.jobs.logs('locked'), { timeout: 5_000 })
    .toMatchObject([{ lines: [{ message: 'a line' }] }]);
  door.open(null);
});

it('a note that the database refuses permanently does not delay other notes', async () => {
  await database.sql(
    `CREATE FUNCTION bildad.refuse() RETURNS trigger LANGUAGE plpgsql AS
     $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'cardinality_violation'; END $$`,
  );
  await database.sql(
    `CREATE TRIGGER refuse BEFORE INSERT ON bildad.job_run_notes FOR EACH ROW
     WHEN (new.value LIKE '%poison%') EXECUTE FUNCTION bildad.refuse()`,
  );
  const poisoned = await begin('poisoned');
  const refused = bildad.next('engine.error');
  poisoned.job.progress(0.1, 'poison');
  expect((await refused).doing).toBe('writing progress, log lines and output of jobs');
  const { job, door } = await begin('other');
  job.progress(0.1);
  await expect.poll(storedRuns, { timeout: 5_000 }).toEqual([job.jobRunId]);
  for (const one of [poisoned.door, door]) one.open(null);
});

it('of two notes for the same row the last one is written', async () => {
  const { db, tables } = (bildad.engine as any).bildad.store;
  const note = { jobRunId: '7', kind: 'log', seq: 0, keepMs: 60_000 } as const;
  await writeNotes(db, tables, [
    { ...note, value: '"first"' },
    { ...note, value: '"last"' },
    { ...note, jobRunId: '8', value: '"other"' },
  ]);
  expect(await database.sql('SELECT value FROM bildad.job_run_notes ORDER BY job_run_id')).toEqual([
    { value: '"last"' },
    { value: '"other"' },
  ]);
});
