import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { startNode, type TestNode } from '../support/node.js';
import { startProxy } from '../support/proxy.js';

// Real processes that are blocked, frozen, killed and cut off. The lease is short, so that a test takes seconds.

const LEASE_MS = 1_500;
const LONG = { timeout: 60_000 };

let bildad: TestApp;
const starting: Promise<TestNode>[] = [];
const start = (env: Record<string, string> = {}, url?: string) => {
  const node = startNode(url ?? bildad.database.url, env);
  starting.push(node);
  return node;
};

beforeAll(async () => {
  bildad = await bootApp({ options: { role: 'producer' } });
  await bildad.sql('CREATE TABLE ledger (id bigserial, identifier text, run_id bigint, pid int)');
  await bildad.jobs.updateJobConfig({ leaseMs: LEASE_MS });
  // Declares the templates.
  await (await startNode(bildad.database.url)).terminate();
});
afterEach(async () => {
  // Also one that is still starting, in the place of one that died as the test ended.
  const starts = await Promise.allSettled(starting.splice(0));
  await Promise.all(
    starts.map(async (start) => {
      if (start.status === 'rejected') return;
      const { exitCode, signalCode } = start.value.process;
      if (exitCode === null && signalCode === null) await start.value.kill();
    }),
  );
  await bildad.sql(
    'DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs; DELETE FROM bildad.job_nodes; TRUNCATE ledger',
  );
});
afterAll(() => bildad.close());

const began = (runs: number) =>
  expect.poll(() => bildad.sql('SELECT FROM ledger')).toHaveLength(runs);

const nodeOf = async ({ process: { pid } }: TestNode) =>
  (await bildad.jobs.listNodes()).filter((node) => node.pid === pid);

const runsOf = (identifier: string) => bildad.jobs.listJobRunsForIdentifier(identifier);

it(
  'a node whose event loop is blocked for two leases says so, and keeps its jobs',
  LONG,
  async () => {
    // The other one would take the job over.
    const both = await Promise.all([start(), start()]);
    // Both beat in their threads.
    await expect
      .poll(async () =>
        (await bildad.jobs.listNodes()).filter(
          ({ beat, endedAt }) => Number(beat) > 0 && endedAt === null,
        ),
      )
      .toHaveLength(2);
    const entry = await bildad.engine.enqueueJob('BLOCK', { ms: 2 * LEASE_MS });
    await began(1);
    const [{ pid }] = await bildad.sql('SELECT pid FROM ledger');
    const blocked = both.find((node) => node.process.pid === pid)!;
    await expect
      .poll(async () => (await nodeOf(blocked))[0]?.blockedSince, {
        interval: 50,
      })
      .toBeInstanceOf(Date);
    const run = await bildad.engine.waitForJob(entry.jobRunIdentifier, {
      timeout: '20s',
    });
    expect(run).toMatchObject({ retry: 0, result: 'SUCCEEDED' });
    expect(run.endedAt!.getTime() - run.startedAt.getTime()).toBeGreaterThan(2 * LEASE_MS - 100);
    expect(await bildad.sql('SELECT FROM ledger')).toHaveLength(1);
    await expect
      .poll(async () => (await nodeOf(blocked))[0])
      .toMatchObject({ blockedSince: null, endedAt: null });
    expect(both.flatMap(({ messages }) => messages.map(({ event }) => event))).not.toContain(
      'node.fenced',
    );
  },
);

it('a node whose event loop is blocked for too long is killed, and says why', LONG, async () => {
  const blocked = await start({ MAX_BLOCK: '1s' });
  const exited = new Promise((resolve) =>
    blocked.process.once('exit', (_code, signal) => resolve(signal)),
  );
  await bildad.engine.enqueueJob('BLOCK', { ms: 60_000 });
  expect(await exited).toBe('SIGKILL');
});

it(
  "a killed node's jobs run again within a lease and five seconds, and cost no retry",
  LONG,
  async () => {
    const victim = await start();
    const entries = await bildad.engine.enqueueJobs('HANG', [{}, {}, {}]);
    await began(3);
    const rescuer = await start({ RESCUER: 'yes' });
    await victim.kill();
    const killedAt = performance.now();
    await expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue(), { interval: 50 }).toBe(0);
    expect(performance.now() - killedAt).toBeLessThan(LEASE_MS + 5_000);
    expect(await rescuer.waitForMessage('node.lost')).toMatchObject({ charged: 3 });
    expect(await nodeOf(victim)).toMatchObject([{ endReason: 'lost' }]);
    for (const { jobRunIdentifier } of entries)
      expect(await runsOf(jobRunIdentifier)).toMatchObject([
        { retry: 0, result: 'FAILED', reason: 'Expired' },
        { retry: 1, result: 'SUCCEEDED' },
      ]);
  },
);

it(
  'a node that was frozen for longer than its lease changes nothing, and begins anew',
  LONG,
  async () => {
    const zombie = await start();
    const entry = await bildad.engine.enqueueJob('DEAF', {});
    await began(1);
    await expect.poll(() => nodeOf(zombie)).toHaveLength(1);
    const [before] = await nodeOf(zombie);
    const rescuer = await start({ RESCUER: 'yes' });
    zombie.process.kill('SIGSTOP');
    await rescuer.waitForMessage('node.lost');
    const run = await bildad.engine.waitForJob(entry.jobRunIdentifier, {
      timeout: '20s',
    });
    expect(run).toMatchObject({ retry: 1, output: 'the rescuer' });
    zombie.process.kill('SIGCONT');
    zombie.process.send('go');
    expect(await zombie.waitForMessage('run.finishRejected')).toMatchObject({
      jobRunIdentifier: entry.jobRunIdentifier,
      retry: 0,
    });
    expect(await zombie.waitForMessage('node.fenced')).toMatchObject({
      node: before!.id,
    });
    const { node } = await zombie.waitForMessage('node.joined', ({ node }) => node !== before!.id);
    expect(await runsOf(entry.jobRunIdentifier)).toMatchObject([
      { retry: 0, result: 'FAILED', reason: 'Expired', output: null },
      { retry: 1, result: 'SUCCEEDED', output: 'the rescuer' },
    ]);
    expect(await nodeOf(zombie)).toMatchObject([
      { id: node, endedAt: null },
      { id: before!.id, endReason: 'lost' },
    ]);
    // It works again.
    await rescuer.terminate();
    const next = await bildad.engine.enqueueJob('HEALTHY', {});
    expect(await bildad.engine.waitForJob(next.jobRunIdentifier)).toMatchObject({
      nodeId: node,
      result: 'SUCCEEDED',
    });
  },
);

it(
  'a node that is cut off from the database stops its jobs before its lease is over, and begins anew',
  LONG,
  async () => {
    const proxy = await startProxy(bildad.database.url);
    const lonely = await start({}, proxy.url);
    const entry = await bildad.engine.enqueueJob('HANG', {}, { maxRetries: 0 });
    await began(1);
    await expect.poll(() => nodeOf(lonely)).toHaveLength(1);
    const [before] = await nodeOf(lonely);
    proxy.blackhole();
    const cutAt = performance.now();
    await lonely.waitForMessage('aborted');
    expect(performance.now() - cutAt).toBeLessThan(LEASE_MS);
    expect(await lonely.waitForMessage('node.fenced')).toMatchObject({
      node: before!.id,
      why: 'silent',
      running: 1,
    });
    // Nobody judges here: it ends itself when it can, and gives the job back.
    expect(await nodeOf(lonely)).toMatchObject([{ endedAt: null }]);
    await proxy.refuse();
    await proxy.pass();
    const { node } = await lonely.waitForMessage('node.joined', ({ node }) => node !== before!.id);
    expect(await nodeOf(lonely)).toMatchObject([
      { id: node, endedAt: null },
      { id: before!.id, endReason: 'fenced' },
    ]);
    // Without a retry to lose it has lost none.
    await began(2);
    expect(await runsOf(entry.jobRunIdentifier)).toMatchObject([
      { retry: 0, reason: 'Interrupted', nodeId: before!.id },
      { retry: 1, status: 'RUNNING', nodeId: node },
    ]);
    await lonely.kill();
    await proxy.close();
  },
);

it('a job that kills its node fails for good, and takes no healthy one with it', LONG, async () => {
  let over = false;
  let deaths = 0;
  // As a supervisor would.
  const keepOneUp = async () => {
    const node = await start({ CONCURRENCY: '5' });
    node.process.once('exit', () => {
      if (over) return;
      deaths++;
      void keepOneUp();
    });
  };
  const poison = await bildad.engine.enqueueJob('POISON', {});
  const healthy = await bildad.engine.enqueueJobs(
    'HEALTHY',
    Array.from({ length: 20 }, () => ({})),
  );
  await Promise.all([keepOneUp(), keepOneUp()]);
  await expect
    .poll(() => bildad.jobs.getNumberOfJobsInTheQueue(), {
      timeout: 45_000,
      interval: 100,
    })
    .toBe(0);
  over = true;
  expect(deaths).toBe(3);
  expect(await runsOf(poison.jobRunIdentifier)).toMatchObject([
    { result: 'FAILED', reason: 'Expired' },
    { result: 'FAILED', reason: 'Expired' },
    { result: 'FAILED', reason: 'Crashed' },
  ]);
  for (const { jobRunIdentifier } of healthy)
    expect((await runsOf(jobRunIdentifier)).at(-1)).toMatchObject({
      result: 'SUCCEEDED',
    });
});
