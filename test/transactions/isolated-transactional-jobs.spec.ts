import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';
import { createLedger, effects, heartbeats } from './ledger.js';

// A transactional handler in a thread or process: the end of its run is written there, in the
// handler's transaction.

let bildad: IsolatedApp;
beforeAll(async () => {
  bildad = await bootIsolated();
  await createLedger(bildad);
}, 60_000);
afterAll(() => bildad.close());
beforeEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries; DELETE FROM ledger'));

const nextEventOf = (name: 'run.finished' | 'run.finishRejected', code: string) =>
  bildad.next(name, ({ templateCode }) => templateCode === code);

describe.each(['TRANSACTIONAL_THREAD', 'TRANSACTIONAL_PROCESS'])('%s', (code) => {
  it('writes, jobs and the end of the run are committed together, and this node emits the event', async () => {
    const finished = nextEventOf('run.finished', code);
    const run = await bildad.act(code, 'effect');
    expect(run).toMatchObject({ result: 'SUCCEEDED' });
    expect(await finished).toMatchObject({
      outcome: 'completed',
      entry: 'removed',
    });
    expect(await effects(bildad)).toEqual({ effect: 1 });
    expect(await bildad.engine.waitForJob(run.output as string)).toMatchObject({
      result: 'SUCCEEDED',
    });
  });

  it('a failure rolls back the transaction', async () => {
    const run = await bildad.act(code, 'effectThenFail');
    expect(run).toMatchObject({
      result: 'FAILED',
      reason: 'after its effect',
    });
    expect(await effects(bildad)).toEqual({});
  });

  it('a kill rolls back the transaction', async () => {
    const begun = bildad.next('run.progress');
    const { jobRunIdentifier } = await bildad.engine.enqueueJob(code, {
      act: 'effectThenHang',
    });
    const { jobRunId } = await begun;
    await bildad.engine.killJob({ id: jobRunId });
    expect(await bildad.engine.waitForJob(jobRunIdentifier)).toMatchObject({
      reason: 'Killed',
    });
    expect(await effects(bildad)).toEqual({});
    await expect.poll(() => bildad.busySessions()).toBe(0);
  });

  it('the transaction is rolled back when the run has ended elsewhere', async () => {
    const runner = bildad.dataSource.createQueryRunner();
    await runner.startTransaction();
    await runner.query('SELECT pg_advisory_xact_lock(4711)');
    const begun = bildad.next('run.progress');
    await bildad.engine.enqueueJob(code, { act: 'effectThenWait' });
    const { jobRunId } = await begun;
    // The change is made with SQL, so the handler is not aborted.
    await bildad.sql(
      `UPDATE bildad.job_runs SET status = 'DONE', result = 'FAILED', reason = 'Stopped', ended_at = now() WHERE id = $1`,
      [jobRunId],
    );
    const lost = nextEventOf('run.finishRejected', code);
    await runner.commitTransaction();
    await runner.release();
    await lost;
    expect(await effects(bildad)).toEqual({});
  });
});

it.each(['THREAD', 'PROCESS'])(
  'job.complete in a %s: a committed run has succeeded',
  async (code) => {
    const finished = nextEventOf('run.finished', code);
    const run = await bildad.act(code, 'effectByHand');
    expect(run).toMatchObject({ result: 'SUCCEEDED', output: 'by hand' });
    expect(await finished).toMatchObject({ outcome: 'completed' });
    expect(await effects(bildad)).toEqual({ 'by hand': 1 });
  },
);

it.each(['THREAD', 'PROCESS'])(
  'job.complete in a %s: heartbeats do not abort the handler after the commit',
  async (code) => {
    await bildad.jobs.updateJobConfig({ leaseMs: 3_000 });
    await bildad.engine.runJobEngine();
    const runner = bildad.dataSource.createQueryRunner();
    await runner.startTransaction();
    await runner.query('SELECT pg_advisory_xact_lock(4711)');
    const committed = bildad.next('run.progress');
    const finished = nextEventOf('run.finished', code);
    const { jobRunIdentifier } = await bildad.engine.enqueueJob(code, {
      act: 'continueAfterCommit',
    });
    await committed;
    await heartbeats(bildad, 2);
    await runner.commitTransaction();
    await runner.release();
    expect(await finished).toMatchObject({ outcome: 'completed' });
    expect(await bildad.engine.waitForJob(jobRunIdentifier)).toMatchObject({
      output: 'by hand',
    });
    expect(await effects(bildad)).toEqual({ 'by hand': 1, 'went on': 1 });
    await bildad.jobs.updateJobConfig({ leaseMs: 15_000 });
  },
);
