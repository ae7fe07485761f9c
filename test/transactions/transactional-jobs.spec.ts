import { setTimeout as pause } from 'node:timers/promises';
import { RunNotActiveError } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import {
  ByHandJob,
  createLedger,
  EffectJob,
  effects,
  heartbeats,
  SerialEffectJob,
  heldHandler,
  type Effect,
} from './ledger.js';

// @BildadJob({ transactional: true }): one transaction commits the handler's writes, the jobs it
// enqueues, the end of its run and the removal of its entry.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [EffectJob, SerialEffectJob, ByHandJob],
  });
  await createLedger(bildad);
});
afterAll(() => bildad.close());
beforeEach(() =>
  bildad.sql(
    'DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs; DELETE FROM ledger',
  ),
);

type Kind = typeof EffectJob | typeof SerialEffectJob | typeof ByHandJob;

/**
 * Runs the job once.
 * @returns the run as launched, and a promise of the entry's fate
 */
async function once(context: Effect, job: Kind = EffectJob) {
  const entry = await bildad.engine.enqueueJob(job, context);
  const mine = (run: { jobRunIdentifier: string }) =>
    run.jobRunIdentifier === entry.jobRunIdentifier;
  const over = Promise.race([
    bildad.next('run.finished', mine).then(({ entry: fate }) => fate),
    bildad.next('run.finishRejected', mine).then(({ outcome }) => `lost:${outcome}`),
  ]);
  const run = await bildad.engine.runJob(entry);
  return { entry, run, over };
}

async function runOf(id: string) {
  const [row] = await bildad.sql(
    `SELECT status, result, reason, output, error ->> 'code' AS code FROM bildad.job_runs WHERE id = $1`,
    [id],
  );
  return row;
}

const queued = () => bildad.jobs.getNumberOfJobsInTheQueue();

it("a handler's writes, its enqueued jobs and the end of its run are committed together", async () => {
  const { over, run } = await once({
    name: 'one',
    act: 'enqueue',
    hold: true,
  });
  const { door } = await heldHandler();
  expect(await effects(bildad)).toEqual({});
  expect(await queued()).toBe(1);
  expect(await runOf(run.id)).toMatchObject({ status: 'RUNNING' });
  door.open({ value: 'done' });
  expect(await over).toBe('removed');
  expect(await effects(bildad)).toEqual({ one: 1 });
  expect(await runOf(run.id)).toMatchObject({
    status: 'DONE',
    result: 'SUCCEEDED',
    output: { value: 'done' },
  });
  const [next, ...others] = await bildad.jobs.listJobsToRunInTheQueue();
  expect(others).toEqual([]);
  expect(next!.jobContext).toEqual({ name: 'enqueued' });
});

it("a failure rolls back the handler's writes and jobs, and is recorded outside the transaction", async () => {
  const { over, run } = await once({
    name: 'none',
    act: 'enqueue',
    fail: 'no money',
  });
  expect(await over).toBe('reopened');
  expect(await effects(bildad)).toEqual({});
  expect(await runOf(run.id)).toMatchObject({
    result: 'FAILED',
    reason: 'no money',
  });
  expect(await queued()).toBe(1);
});

it('a job enqueued outside the transaction survives a rollback', async () => {
  const { over } = await once({
    name: 'none',
    act: 'enqueueOutside',
    fail: 'no money',
  });
  await over;
  expect(await queued()).toBe(2);
});

it('a handler that ignores a failed statement fails, because its transaction cannot be committed', async () => {
  const { over, run } = await once({ name: 'none', act: 'swallow' });
  expect(await over).toBe('reopened');
  expect(await runOf(run.id)).toMatchObject({
    result: 'FAILED',
    code: '25P02',
  });
  expect(await effects(bildad)).toEqual({});
});

it('a handler that ends its transaction itself fails with a configuration error', async () => {
  const { over, run } = await once({ name: 'early', act: 'commitByHand' });
  expect(await over).toBe('reopened');
  expect(await runOf(run.id)).toMatchObject({
    result: 'FAILED',
    code: 'BILDAD_CONFIG',
  });
});

it.each([
  ['READ COMMITTED', EffectJob],
  ['SERIALIZABLE', SerialEffectJob],
] as const)(
  'the transaction is %s, with server timeouts above those of the node',
  async (level, job) => {
    const { over, run } = await once({ name: 'set', act: 'settings' }, job);
    await over;
    const { output } = await runOf(run.id);
    expect(output.level.toUpperCase()).toBe(level);
    expect(output.statement).toMatch(/^36\d{5}ms$/);
    expect(output.idle).toBe(output.statement);
  },
);

it.each([
  ['completed', 'completeJob'],
  ['failed', 'failJob'],
  ['expired', 'expireJob'],
] as const)(
  'the transaction is rolled back when its run was %s by another caller',
  async (_how, verb) => {
    const { run } = await once({ name: 'late', hold: true });
    const { door, job } = await heldHandler();
    await bildad.engine[verb](run, new Error('by hand'));
    expect(job.signal.aborted).toBe(true);
    const lost = bildad.next('run.finishRejected');
    door.open('too late');
    await lost;
    expect(await effects(bildad)).toEqual({});
    expect((await runOf(run.id)).output).not.toBe('too late');
  },
);

it('the transaction of a stopped run is rolled back, although its handler is not aborted', async () => {
  const { entry, run } = await once({ name: 'late', hold: true });
  const { door, job } = await heldHandler();
  await bildad.engine.stopJobInQueue(entry);
  expect(job.signal.aborted).toBe(false);
  const lost = bildad.next('run.finishRejected');
  door.open('too late');
  await lost;
  expect(await effects(bildad)).toEqual({});
  expect(await runOf(run.id)).toMatchObject({ reason: 'Stopped' });
  expect(await queued()).toBe(1);
});

it('the transaction is rolled back when another node has taken over the run', async () => {
  const { over, run } = await once({ name: 'late', hold: true });
  const { door } = await heldHandler();
  await bildad.sql(`UPDATE bildad.job_runs SET node_id = 'another' WHERE id = $1`, [run.id]);
  door.open('too late');
  expect(await over).toBe('lost:failed');
  expect(await effects(bildad)).toEqual({});
  expect(await runOf(run.id)).toMatchObject({ status: 'RUNNING' });
  await bildad.engine.failJob(run, new Error('as the test is over'));
});

it('a kill cancels the running statement and closes the connection', async () => {
  const { run } = await once({ name: 'killed', act: 'sleepInSql' });
  const sleeping = () =>
    bildad.sql<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(60)' AND state = 'active'`,
    );
  await expect.poll(sleeping).toHaveLength(1);
  const [{ pid }] = (await sleeping()) as [{ pid: number }];
  const killed = await bildad.engine.killJob(run);
  expect(killed).toMatchObject({ result: 'FAILED', reason: 'Killed' });
  expect(await effects(bildad)).toEqual({});
  await expect
    .poll(() => bildad.sql('SELECT FROM pg_stat_activity WHERE pid = $1', [pid]))
    .toEqual([]);
});

it('a handler that ignores its signal loses its connection after the grace period', async () => {
  const { run } = await once({ name: 'ignores abort', hold: true });
  const { door } = await heldHandler();
  expect(await bildad.engine.killJob(run)).toMatchObject({ reason: 'Killed' });
  await expect
    .poll(() =>
      bildad.sql(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'`,
      ),
    )
    .toEqual([]);
  const ended = bildad.next('process.ended');
  door.open('too late');
  await ended;
  expect(await effects(bildad)).toEqual({});
});

it('one of two conflicting SERIALIZABLE transactions fails like any handler', async () => {
  const [first, second] = await Promise.all([
    once({ name: 'a', hold: true }, SerialEffectJob),
    once({ name: 'b', hold: true }, SerialEffectJob),
  ]);
  const doors = [await heldHandler(), await heldHandler()];
  for (const { job } of doors) await job.manager.query('SELECT count(*) FROM ledger');
  for (const { job } of doors)
    await job.manager.query('INSERT INTO ledger (name) VALUES ($1)', ['seen']);
  for (const { door } of doors) door.open('done');
  expect([await first.over, await second.over].toSorted()).toEqual(['removed', 'reopened']);
  const [failed] = await bildad.sql(
    `SELECT error ->> 'code' AS code FROM bildad.job_runs WHERE result = 'FAILED'`,
  );
  expect(failed).toEqual({ code: '40001' });
});

it('a SERIALIZABLE transaction is not disturbed by heartbeats', async () => {
  await bildad.jobs.updateJobConfig({ leaseMs: 5_000 });
  const node = await bootApp({
    database: bildad.database,
    providers: [EffectJob, SerialEffectJob, ByHandJob],
  });
  try {
    const entry = await node.engine.enqueueJob(SerialEffectJob, {
      name: 'long',
      hold: true,
    });
    const over = node.next('run.finished');
    await node.engine.runJob(entry);
    const { door } = await heldHandler();
    // The node sends one heartbeat per second.
    await pause(1_300);
    door.open('done');
    expect(await over).toMatchObject({ outcome: 'completed' });
    expect(await effects(bildad)).toEqual({ long: 1 });
  } finally {
    await node.close();
    await bildad.jobs.updateJobConfig({ leaseMs: 15_000 });
  }
});

it("job.complete: the end of the run is committed with the handler's transaction", async () => {
  const { over, run } = await once({ name: 'hand' }, ByHandJob);
  expect(await over).toBe('removed');
  expect(await effects(bildad)).toEqual({ hand: 1 });
  expect(await runOf(run.id)).toMatchObject({
    result: 'SUCCEEDED',
    output: { by: 'hand' },
  });
});

it('job.complete: an error after the commit does not change the outcome', async () => {
  const { over, run } = await once({ name: 'hand', fail: 'after the commit' }, ByHandJob);
  expect(await over).toBe('removed');
  expect(await runOf(run.id)).toMatchObject({ result: 'SUCCEEDED' });
});

it('job.complete: heartbeats do not abort the handler after the commit', async () => {
  await bildad.jobs.updateJobConfig({ leaseMs: 3_000 });
  await bildad.engine.runJobEngine();
  const { over, run } = await once({ name: 'hand', hold: true }, ByHandJob);
  const { door, job } = await heldHandler();
  expect(await runOf(run.id)).toMatchObject({ result: 'SUCCEEDED' });
  await heartbeats(bildad, 2);
  expect(job.signal.aborted).toBe(false);
  door.open(null);
  expect(await over).toBe('removed');
  await bildad.jobs.updateJobConfig({ leaseMs: 15_000 });
});

it('job.complete: an open transaction is not reported as a lost database', async () => {
  const lost: unknown[] = [];
  const node = await bootApp({
    database: bildad.database,
    providers: [ByHandJob],
    options: { queryTimeout: '1s', shutdown: { killGracePeriod: 100 } },
  });
  try {
    node.events.on('database.lost', (event) => lost.push(event));
    const entry = await node.engine.enqueueJob(
      ByHandJob,
      { name: 'open', act: 'leaveOpen' },
      { timeout: '1m' },
    );
    const waits = node.next('engine.error');
    const finished = node.next('run.finished');
    const run = await node.engine.runJob(entry);
    const { door } = await heldHandler();
    const killed = node.engine.killJob(run);
    // The open transaction holds the lock of the run's row for too long.
    expect(await waits).toMatchObject({
      doing: `recording the end of run ${run.id}`,
      error: { databaseCode: '55P03' },
    });
    door.open(null);
    expect(await finished).toMatchObject({ outcome: 'completed' });
    await killed;
    expect(lost).toEqual([]);
    expect(await runOf(run.id)).toMatchObject({ result: 'SUCCEEDED' });
  } finally {
    await node.close();
  }
});

it("job.complete: after a rollback the handler's result decides", async () => {
  const { over, run } = await once({ name: 'hand', act: 'swallow' }, ByHandJob);
  expect(await over).toBe('removed');
  expect(await effects(bildad)).toEqual({});
  expect(await runOf(run.id)).toMatchObject({ output: { by: 'return' } });
  const failing = await once({ name: 'hand', act: 'swallow', fail: 'both' }, ByHandJob);
  expect(await failing.over).toBe('reopened');
  expect(await runOf(failing.run.id)).toMatchObject({ reason: 'both' });
});

it('job.complete in a transactional job is rejected with a configuration error', async () => {
  const { over } = await once({ name: 'wrong', hold: true });
  const { door, job } = await heldHandler();
  await expect(job.complete(job.manager)).rejects.toMatchObject({
    code: 'BILDAD_CONFIG',
    field: 'job.complete()',
  });
  door.open('done');
  await over;
  expect(new RunNotActiveError('1').code).toBe('RUN_NOT_ACTIVE');
});
