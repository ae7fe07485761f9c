import {
  BildadJob,
  NonRetryableError,
  type JobExecution,
  type JobHandler,
  type JobQueueEntry,
} from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { claimNext } from '../../src/lifecycle/claim/claim.sql.js';
import { tablesOf } from '../../src/database/tables.js';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// For every way a run can end, its row has the outcome. A registered onFinish SQL function receives it once, in the
// same transaction.

/** Ends in the way that its context names. */
@BildadJob({ code: 'OUTCOME', maxRetries: 1, backoff: '1h' })
class OutcomeJob implements JobHandler<{ how: string }> {
  async runJob({ how }: { how: string }, job: JobExecution): Promise<unknown> {
    if (how === 'throws') throw new Error('no');
    if (how === 'gives up') throw new NonRetryableError('never');
    if (how === 'snoozes') job.snooze('1h');
    if (how === 'cancels') job.cancel('not needed');
    if (how === 'commits')
      await bildad.dataSource.transaction((manager) => job.complete(manager, 'by hand'));
    return how;
  }
}

@BildadJob({ code: 'TRANSACTIONAL', transactional: true })
class TransactionalJob implements JobHandler<object> {
  async runJob(_context: object, job: JobExecution): Promise<unknown> {
    await job.manager.query('SELECT 1');
    return 'committed';
  }
}

let bildad: TestApp;
let unregister: () => void;
const runtimeOf = ({ engine }: TestApp) => (engine as unknown as { bildad: BildadRuntime }).bildad;
const register = () =>
  runtimeOf(bildad).extensions.onFinish.register('spec', { sqlFunction: '"public"."see_ends"' });
beforeAll(async () => {
  bildad = await bootApp({ providers: [OutcomeJob, GatedJob, TransactionalJob] });
  await bildad.jobs.updateJobConfig({ leaseMs: 1_000 });
  await bildad.sql('CREATE TABLE seen (run_id bigint, entry_id bigint, outcome text, fate text)');
  await bildad.sql(`CREATE FUNCTION see_ends (bigint[], bigint[], text[], text[]) RETURNS void LANGUAGE sql AS $see$
    INSERT INTO public.seen SELECT * FROM unnest($1, $2, $3, $4) $see$`);
  unregister = register();
});
afterAll(() => bildad.close());
afterEach(() =>
  bildad.sql(
    'DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs; DELETE FROM seen; DELETE FROM bildad.job_nodes WHERE ended_at IS NOT NULL',
  ),
);

type Seen = { outcome: string; result: string; reason: string | null; fate: string };

/** The only ended run, from its row and from the registered function. */
async function ended(): Promise<Seen> {
  const read = () =>
    bildad.sql<Seen>(
      `SELECT r.outcome, r.result, r.reason, s.fate FROM bildad.job_runs r
       LEFT JOIN seen s ON s.run_id = r.id AND s.entry_id = r.job_queue_entry_id AND s.outcome = r.outcome
       WHERE r.status = 'DONE'`,
    );
  await expect.poll(read).toHaveLength(1);
  expect(await bildad.sql('SELECT FROM seen')).toHaveLength(1);
  const [run] = await read();
  return run!;
}

const runs = (how: string) => async () => {
  await bildad.engine.enqueueAndRunJob(
    OutcomeJob,
    { how },
    { maxRetries: how === 'throws' ? 1 : 0 },
  );
};
const startGated = async () => {
  const run = await bildad.engine.enqueueAndRunJob(GatedJob, {}, { timeout: '1h', backoff: '1h' });
  const arrival = await GatedJob.arrival();
  return { run, entry: { id: run.jobQueueEntryId } as JobQueueEntry, arrival };
};

/** An entry that another node has claimed, with a late run row. */
const claimLate = async () => {
  await bildad.engine.enqueueJob(OutcomeJob, { how: 'returns' }, { backoff: '1h' });
  const { claims } = await claimNext(
    bildad.dataSource,
    tablesOf('bildad'),
    { nodeId: 'elsewhere', leaseMs: 60_000 },
    ['OUTCOME'],
    1,
    { lateRows: true },
  );
  return claims[0]!.claimed;
};

const WAYS: [way: string, end: () => Promise<unknown>, Partial<Seen>][] = [
  ['returns', runs('returns'), { outcome: 'completed', result: 'SUCCEEDED', fate: 'removed' }],
  ['throws', runs('throws'), { outcome: 'failed', reason: 'no', fate: 'reopened' }],
  ['gives up', runs('gives up'), { outcome: 'failedForGood', reason: 'never', fate: 'removed' }],
  ['snoozes', runs('snoozes'), { outcome: 'snoozed', reason: 'Snoozed', fate: 'reopened' }],
  ['cancels itself', runs('cancels'), { outcome: 'cancelled', fate: 'removed' }],
  ['completes in its own transaction', runs('commits'), { outcome: 'completed', fate: 'removed' }],
  [
    'is transactional',
    () => bildad.engine.enqueueAndRunJob(TransactionalJob, {}),
    { outcome: 'completed', fate: 'removed' },
  ],
  [
    'is past its timeout',
    () => bildad.engine.enqueueAndRunJob(GatedJob, {}, { timeout: 100, backoff: '1h' }),
    { outcome: 'timedOut', reason: 'Timeout', fate: 'reopened' },
  ],
  [
    'is killed',
    async () => bildad.engine.killJob((await startGated()).run),
    { outcome: 'killed', reason: 'Killed', fate: 'reopened' },
  ],
  [
    'is cancelled',
    async () => bildad.engine.cancelJob((await startGated()).entry),
    { outcome: 'cancelled', reason: 'Cancelled', fate: 'removed' },
  ],
  [
    'is stopped in the queue',
    async () => bildad.engine.stopJobInQueue((await startGated()).entry),
    { outcome: 'stopped', reason: 'Stopped', fate: 'reopened' },
  ],
  [
    'is completed with completeJob',
    async () => bildad.engine.completeJob((await startGated()).run),
    { outcome: 'completed', result: 'SUCCEEDED', fate: 'removed' },
  ],
  [
    'is failed with failJob',
    async () => bildad.engine.failJob((await startGated()).run, new Error('Stopped')),
    { outcome: 'failed', reason: 'Stopped', fate: 'reopened' },
  ],
  [
    'is expired with expireJob',
    async () => bildad.engine.expireJob((await startGated()).run),
    { outcome: 'expired', reason: 'Expired', fate: 'reopened' },
  ],
  [
    'was not started in time',
    async () => {
      const options = { delay: '1h', startBefore: '2h' } as const;
      const { id } = await bildad.engine.enqueueJob(GatedJob, {}, options);
      await bildad.sql('UPDATE bildad.job_queue_entries SET start_before = now() WHERE id = $1', [
        id,
      ]);
      await bildad.engine.runJobEngine();
    },
    { outcome: 'missed', reason: 'Missed', fate: 'removed' },
  ],
  [
    'has an expired lease',
    async () => {
      const { jobQueueEntryId } = await claimLate();
      await bildad.sql(
        `UPDATE bildad.job_queue_entries SET claim_expires_at = now() - interval '1 s', backoff = '"1h"' WHERE id = $1`,
        [jobQueueEntryId],
      );
      await expect
        .poll(async () => (await bildad.engine.runJobEngine()).expire.length, { timeout: 5_000 })
        .toBe(1);
    },
    { outcome: 'expired', reason: 'Expired', fate: 'reopened' },
  ],
  [
    'has a late row and completes',
    async () => {
      const { finishRuns, lateRows } = runtimeOf(bildad);
      const run = await claimLate();
      lateRows.track([run]);
      await finishRuns.finish(run, { kind: 'completed', output: 1 });
    },
    { outcome: 'completed', fate: 'removed' },
  ],
  [
    'has a late row and fails',
    async () => {
      const run = await claimLate();
      runtimeOf(bildad).lateRows.track([run]);
      const error = new Error('late');
      await runtimeOf(bildad).finishRuns.finish(run, { kind: 'failed', error });
    },
    { outcome: 'failed', reason: 'late', fate: 'reopened' },
  ],
  [
    'has a late row that its node does not expect',
    async () => {
      const run = await claimLate();
      await runtimeOf(bildad).finishRuns.finish(run, { kind: 'completed', output: 1 });
    },
    { outcome: 'completed', fate: 'removed' },
  ],
];

it.each(WAYS)(
  'a run that %s has its outcome and is reported to onFinish once',
  async (_way, end, expected) => {
    await end();
    expect(await ended()).toMatchObject(expected);
  },
);

it('a batch of written rows, late rows and rejected ends has the right outcomes', async () => {
  const { finishRuns, lateRows } = runtimeOf(bildad);
  const late = await claimLate();
  const { run, arrival } = await startGated();
  const gone = { ...late, jobRunId: '999999999', jobQueueEntryId: '999999999' };
  lateRows.track([late, gone]);
  const written = { ...late, jobRunId: run.id, jobQueueEntryId: run.jobQueueEntryId };
  const fates = await Promise.all([
    finishRuns.finish(gone, { kind: 'completed', output: 1 }),
    finishRuns.finish(late, { kind: 'completed', output: 1 }),
    finishRuns.finish(written, { kind: 'stopped' }),
  ]);
  expect(fates).toEqual([null, 'removed', 'reopened']);
  expect(
    await bildad.sql('SELECT run_id::text AS id, outcome, fate FROM seen ORDER BY run_id'),
  ).toEqual([
    { id: late.jobRunId, outcome: 'completed', fate: 'removed' },
    { id: run.id, outcome: 'stopped', fate: 'reopened' },
  ]);
  arrival.door.open(null);
});

it('an unregistered function is not called, and a failing one delays the end of the run', async () => {
  unregister();
  await bildad.engine.enqueueAndRunJob(OutcomeJob, { how: 'returns' });
  await expect
    .poll(() => bildad.sql(`SELECT FROM bildad.job_runs WHERE status = 'DONE'`))
    .toHaveLength(1);
  expect(await bildad.sql('SELECT FROM seen')).toEqual([]);
  unregister = register();

  await bildad.sql('ALTER TABLE seen ADD CONSTRAINT none CHECK (false) NOT VALID');
  const failed = bildad.next('engine.error');
  const run = await bildad.engine.enqueueAndRunJob(OutcomeJob, { how: 'returns' });
  expect(await failed).toMatchObject({ doing: `recording the end of run ${run.id}` });
  await bildad.sql('ALTER TABLE seen DROP CONSTRAINT none');
  expect(await bildad.engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    outcome: 'completed',
  });
});

it('a run that failed with the text "Stopped" on another node is fenced', async () => {
  await bildad.engine.runJobEngine();
  const elsewhere = await bootApp({ database: bildad.database });
  try {
    const { run, arrival } = await startGated();
    const rejected = bildad.next('run.finishRejected');
    await elsewhere.engine.failJob(run, new Error('Stopped'));
    expect(await rejected).toMatchObject({ jobRunId: run.id });
    expect(arrival.job.signal.aborted).toBe(true);
  } finally {
    await elsewhere.close();
  }
});
