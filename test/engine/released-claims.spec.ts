import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { claimEntries, claimNext, releaseClaims } from '../../src/lifecycle/claim/claim.sql.js';
import { releaseUnacknowledged } from '../../src/lifecycle/run/late-run-rows.sql.js';
import { reopenOrphans } from '../../src/lifecycle/finish/finish-runs.sql.js';
import { tablesOf } from '../../src/database/tables.js';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// A released claim leaves its entry as it was: a scheduled entry keeps its time.

const tables = tablesOf('bildad');
const claimer = { nodeId: 'elsewhere', leaseMs: 60_000 };
let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob, GatedJob] });
});
afterAll(() => bildad.close());
beforeEach(() =>
  bildad.sql(
    'DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs; DELETE FROM bildad.job_keys',
  ),
);

const started = async () =>
  (await bildad.engine.runJobEngine()).start.map((outcome) =>
    outcome.ok ? outcome.jobRun.jobRunIdentifier : outcome.error,
  );
const makeDue = () => bildad.sql(`UPDATE bildad.job_queue_entries SET run_at = clock_timestamp()`);
const entry = async (jobRunIdentifier: string) =>
  bildad.jobs.getJobQueueEntryForIdentifier(jobRunIdentifier);

/** Claims this entry and releases it. */
async function claimAndRelease(
  { id }: { id: string },
  meanwhile: () => Promise<unknown> = async () => undefined,
): Promise<void> {
  const { dataSource } = bildad;
  const [claim] = await claimEntries(dataSource, tables, claimer, [id]);
  await meanwhile();
  expect(await releaseClaims(dataSource, tables, claimer.nodeId, [claim!.claimed.jobRunId])).toBe(
    1,
  );
}

it('a scheduled entry whose claim is released keeps its time', async () => {
  const job = await bildad.engine.enqueueJob(SimpleJob, {}, { delay: '1d' });
  await claimAndRelease(job);
  expect(await entry(job.jobRunIdentifier)).toMatchObject({
    status: 'AVAILABLE',
    scheduled: true,
    runAt: job.runAt,
    retry: 0,
  });
  expect(await started()).toEqual([]);
  await makeDue();
  expect(await started()).toEqual([job.jobRunIdentifier]);
});

it('a scheduled entry whose run row is deleted keeps its time', async () => {
  const job = await bildad.engine.enqueueJob(SimpleJob, {}, { delay: '1d' });
  await claimEntries(bildad.dataSource, tables, claimer, [job.id]);
  await bildad.sql('DELETE FROM bildad.job_runs');
  expect(await reopenOrphans(bildad.dataSource, tables, 10)).toBe(1);
  expect(await started()).toEqual([]);
  await makeDue();
  expect(await started()).toEqual([job.jobRunIdentifier]);
});

it('a keepLatest entry whose claim is released waits for its key, and starts at once if the key is free', async () => {
  const options = { unique: { key: 'one', onConflict: 'keepLatest' as const } };
  const add = () => bildad.engine.enqueueJob(GatedJob, {}, options);
  const end = async ({ door, job }: Awaited<ReturnType<typeof GatedJob.arrival>>) => {
    door.open(null);
    await bildad.engine.waitForJob(job.jobRunIdentifier);
  };
  await add();
  await bildad.engine.runJobEngine();
  const first = await GatedJob.arrival();
  const latest = await add();
  await claimAndRelease(latest);
  expect(await started()).toEqual([]);
  await claimAndRelease(latest, async () => {
    await end(first);
    // The pass advances the key.
    expect(await started()).toEqual([]);
  });
  expect(await started()).toEqual([latest.jobRunIdentifier]);
  await end(await GatedJob.arrival());
});

it('the release of a claim keeps the crash count and delays the entry', async () => {
  await bildad.engine.enqueueJobs(SimpleJob, [{}, {}]);
  const { claims } = await claimNext(bildad.dataSource, tables, claimer, ['SIMPLE'], 1);
  await claimNext(bildad.dataSource, tables, claimer, ['SIMPLE'], 1, {
    lateRows: true,
  });
  await bildad.sql(
    `UPDATE bildad.job_queue_entries SET crashes = 1,
       claim_expires_at = CASE WHEN claimed_by IS NOT NULL THEN clock_timestamp() END`,
  );
  expect(
    await releaseClaims(bildad.dataSource, tables, claimer.nodeId, [claims[0]!.claimed.jobRunId]),
  ).toBe(1);
  expect(
    await releaseUnacknowledged(bildad.dataSource, tables, claimer.nodeId, claimer.leaseMs, []),
  ).toBe(1);
  expect(await bildad.sql('SELECT status, scheduled FROM bildad.job_queue_entries')).toEqual([
    { status: 'AVAILABLE', scheduled: true },
    { status: 'AVAILABLE', scheduled: true },
  ]);
});
