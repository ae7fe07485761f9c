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
  standing,
  type Effect,
} from './ledger.js';

// @BildadJob({ transactional: true }): what a handler writes, the jobs it enqueues, its run's end and its entry's removal
// are committed together, or not at all.

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

/** Runs it once. @returns its run as it ended, and the entry's fate */
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

it('commits the writes, the end and the jobs it enqueued together', async () => {
  const { over, run } = await once({
    name: 'one',
    act: 'enqueue',
    stand: true,
  });
  const { door } = await standing();
  expect(await effects(bildad)).toEqual({});
  expect(await queued()).toBe(1);
  expect(await runOf(run.id)).toMatchObject({ status: 'RUNNING' });
  door.open({ said: 'done' });
  expect(await over).toBe('removed');
  expect(await effects(bildad)).toEqual({ one: 1 });
  expect(await runOf(run.id)).toMatchObject({
    status: 'DONE',
    result: 'SUCCEEDED',
    output: { said: 'done' },
  });
  const [next, ...others] = await bildad.jobs.listJobsToRunInTheQueue();
  expect(others).toEqual([]);
  expect(next!.jobContext).toEqual({ name: 'enqueued' });
});

it('rolls its writes and jobs back where it fails, and records that outside', async () => {
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

it('what it enqueues outside of the transaction stays', async () => {
  const { over } = await once({
    name: 'none',
    act: 'enqueueOutside',
    fail: 'no money',
  });
  await over;
  expect(await queued()).toBe(2);
});

it('fails where a failed statement was swallowed: nothing of it can be committed', async () => {
  const { over, run } = await once({ name: 'none', act: 'swallow' });
  expect(await over).toBe('reopened');
  expect(await runOf(run.id)).toMatchObject({
    result: 'FAILED',
    code: '25P02',
  });
  expect(await effects(bildad)).toEqual({});
});

it('a handler that has ended its transaction itself has failed, and is told why', async () => {
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
] as const)('is %s, with timeouts on the server behind those of the node', async (level, job) => {
  const { over, run } = await once({ name: 'set', act: 'settings' }, job);
  await over;
  const { output } = await runOf(run.id);
  expect(output.level.toUpperCase()).toBe(level);
  expect(output.statement).toMatch(/^36\d{5}ms$/);
  expect(output.idle).toBe(output.statement);
});

it.each([
  ['completed', 'completeJob'],
  ['failed', 'failJob'],
  ['expired', 'expireJob'],
] as const)('is rolled back where its run was %s by hand meanwhile', async (_how, verb) => {
  const { run } = await once({ name: 'late', stand: true });
  const { door, job } = await standing();
  await bildad.engine[verb](run, new Error('by hand'));
  expect(job.signal.aborted).toBe(true);
  const lost = bildad.next('run.finishRejected');
  door.open('too late');
  await lost;
  expect(await effects(bildad)).toEqual({});
  expect((await runOf(run.id)).output).not.toBe('too late');
});

it('is rolled back where it was taken back, though nobody tells it', async () => {
  const { entry, run } = await once({ name: 'late', stand: true });
  const { door, job } = await standing();
  await bildad.engine.stopJobInQueue(entry);
  expect(job.signal.aborted).toBe(false);
  const lost = bildad.next('run.finishRejected');
  door.open('too late');
  await lost;
  expect(await effects(bildad)).toEqual({});
  expect(await runOf(run.id)).toMatchObject({ reason: 'Stopped' });
  expect(await queued()).toBe(1);
});

it('is rolled back where another node has taken its run over', async () => {
  const { over, run } = await once({ name: 'late', stand: true });
  const { door } = await standing();
  await bildad.sql(`UPDATE bildad.job_runs SET node_id = 'another' WHERE id = $1`, [run.id]);
  door.open('too late');
  expect(await over).toBe('lost:failed');
  expect(await effects(bildad)).toEqual({});
  expect(await runOf(run.id)).toMatchObject({ status: 'RUNNING' });
  await bildad.engine.failJob(run, new Error('as the test is over'));
});

it('killed: what the server does for it is cancelled, and its connection is not used again', async () => {
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

it('a deaf handler that is abandoned loses its connection', async () => {
  const { run } = await once({ name: 'deaf', stand: true });
  const { door } = await standing();
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

it('in two that are SERIALIZABLE and contradict each other one fails like any handler', async () => {
  const [first, second] = await Promise.all([
    once({ name: 'a', stand: true }, SerialEffectJob),
    once({ name: 'b', stand: true }, SerialEffectJob),
  ]);
  const doors = [await standing(), await standing()];
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

it('one that is SERIALIZABLE outlasts heartbeats', async () => {
  await bildad.jobs.updateJobConfig({ leaseMs: 5_000 });
  const node = await bootApp({
    database: bildad.database,
    providers: [EffectJob, SerialEffectJob, ByHandJob],
  });
  try {
    const entry = await node.engine.enqueueJob(SerialEffectJob, {
      name: 'long',
      stand: true,
    });
    const over = node.next('run.finished');
    await node.engine.runJob(entry);
    const { door } = await standing();
    // A beat a second.
    await pause(1_300);
    door.open('done');
    expect(await over).toMatchObject({ outcome: 'completed' });
    expect(await effects(bildad)).toEqual({ long: 1 });
  } finally {
    await node.close();
    await bildad.jobs.updateJobConfig({ leaseMs: 15_000 });
  }
});

it('by hand: the end is committed with a transaction of the handler', async () => {
  const { over, run } = await once({ name: 'hand' }, ByHandJob);
  expect(await over).toBe('removed');
  expect(await effects(bildad)).toEqual({ hand: 1 });
  expect(await runOf(run.id)).toMatchObject({
    result: 'SUCCEEDED',
    output: { by: 'hand' },
  });
});

it('by hand: what happens after the commit does not undo it', async () => {
  const { over, run } = await once({ name: 'hand', fail: 'after the commit' }, ByHandJob);
  expect(await over).toBe('removed');
  expect(await runOf(run.id)).toMatchObject({ result: 'SUCCEEDED' });
});

it('by hand: its handler goes on after the commit, whatever heartbeats say of its run', async () => {
  await bildad.jobs.updateJobConfig({ leaseMs: 3_000 });
  await bildad.engine.runJobEngine();
  const { over, run } = await once({ name: 'hand', stand: true }, ByHandJob);
  const { door, job } = await standing();
  expect(await runOf(run.id)).toMatchObject({ result: 'SUCCEEDED' });
  await heartbeats(bildad, 2);
  expect(job.signal.aborted).toBe(false);
  door.open(null);
  expect(await over).toBe('removed');
  await bildad.jobs.updateJobConfig({ leaseMs: 15_000 });
});

it('by hand: a transaction that is left open is no reason to take the database for lost', async () => {
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
    const { door } = await standing();
    const killed = node.engine.killJob(run);
    // Another transaction has the row of the run locked for too long.
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

it('by hand: rolled back, the run ends as the handler does', async () => {
  const { over, run } = await once({ name: 'hand', act: 'swallow' }, ByHandJob);
  expect(await over).toBe('removed');
  expect(await effects(bildad)).toEqual({});
  expect(await runOf(run.id)).toMatchObject({ output: { by: 'return' } });
  const failing = await once({ name: 'hand', act: 'swallow', fail: 'both' }, ByHandJob);
  expect(await failing.over).toBe('reopened');
  expect(await runOf(failing.run.id)).toMatchObject({ reason: 'both' });
});

it('has typed errors for the wrong end', async () => {
  const { over } = await once({ name: 'wrong', stand: true });
  const { door, job } = await standing();
  await expect(job.complete(job.manager)).rejects.toMatchObject({
    code: 'BILDAD_CONFIG',
    field: 'job.complete()',
  });
  door.open('done');
  await over;
  expect(new RunNotActiveError('1').code).toBe('RUN_NOT_ACTIVE');
});
