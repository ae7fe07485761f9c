import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { startNode, type TestNode } from '../support/node.js';
import { startProxy } from '../support/proxy.js';

// Node processes that are blocked, frozen, killed and disconnected. The lease is short to keep the tests short.

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
  // Also a node that was still starting as the test ended.
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

const untilStarted = (runs: number) =>
  expect.poll(() => bildad.sql('SELECT FROM ledger')).toHaveLength(runs);

const nodeOf = async ({ process: { pid } }: TestNode) =>
  (await bildad.jobs.listNodes()).filter((node) => node.pid === pid);

const runsOf = (identifier: string) => bildad.jobs.listJobRunsForIdentifier(identifier);

it(
  'a node whose event loop is blocked for two leases reports that and keeps its jobs',
  LONG,
  async () => {
    // The other node could take the job over.
    const both = await Promise.all([start(), start()]);
    // Both send heartbeats from their threads.
    await expect
      .poll(async () =>
        (await bildad.jobs.listNodes()).filter(
          ({ heartbeats, endedAt }) => Number(heartbeats) > 0 && endedAt === null,
        ),
      )
      .toHaveLength(2);
    const entry = await bildad.engine.enqueueJob('BLOCK', { ms: 2 * LEASE_MS });
    await untilStarted(1);
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

it('a node whose event loop is blocked for longer than maxBlock is killed', LONG, async () => {
  const blocked = await start({ MAX_BLOCK: '1s' });
  const exited = new Promise((resolve) =>
    blocked.process.once('exit', (_code, signal) => resolve(signal)),
  );
  await bildad.engine.enqueueJob('BLOCK', { ms: 60_000 });
  expect(await exited).toBe('SIGKILL');
});

it(
  'the jobs of a killed node run again within a lease and five seconds, without a used retry',
  LONG,
  async () => {
    const victim = await start();
    const entries = await bildad.engine.enqueueJobs('HANG', [{}, {}, {}]);
    await untilStarted(3);
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
  'a node that was frozen for longer than its lease changes nothing, and joins again',
  LONG,
  async () => {
    const frozen = await start();
    const entry = await bildad.engine.enqueueJob('DEAF', {});
    await untilStarted(1);
    await expect.poll(() => nodeOf(frozen)).toHaveLength(1);
    const [before] = await nodeOf(frozen);
    const rescuer = await start({ RESCUER: 'yes' });
    frozen.process.kill('SIGSTOP');
    await rescuer.waitForMessage('node.lost');
    const run = await bildad.engine.waitForJob(entry.jobRunIdentifier, {
      timeout: '20s',
    });
    expect(run).toMatchObject({ retry: 1, output: 'the rescuer' });
    frozen.process.kill('SIGCONT');
    frozen.process.send('go');
    expect(await frozen.waitForMessage('run.finishRejected')).toMatchObject({
      jobRunIdentifier: entry.jobRunIdentifier,
      retry: 0,
    });
    expect(await frozen.waitForMessage('node.fenced')).toMatchObject({
      node: before!.id,
    });
    const { node } = await frozen.waitForMessage('node.joined', ({ node }) => node !== before!.id);
    expect(await runsOf(entry.jobRunIdentifier)).toMatchObject([
      { retry: 0, result: 'FAILED', reason: 'Expired', output: null },
      { retry: 1, result: 'SUCCEEDED', output: 'the rescuer' },
    ]);
    expect(await nodeOf(frozen)).toMatchObject([
      { id: node, endedAt: null },
      { id: before!.id, endReason: 'lost' },
    ]);
    // The node runs jobs again.
    await rescuer.terminate();
    const next = await bildad.engine.enqueueJob('HEALTHY', {});
    expect(await bildad.engine.waitForJob(next.jobRunIdentifier)).toMatchObject({
      nodeId: node,
      result: 'SUCCEEDED',
    });
  },
);

it(
  'a node without a database connection stops its jobs before its lease expires, and joins again',
  LONG,
  async () => {
    const proxy = await startProxy(bildad.database.url);
    const isolated = await start({}, proxy.url);
    const entry = await bildad.engine.enqueueJob('HANG', {}, { maxRetries: 0 });
    await untilStarted(1);
    await expect.poll(() => nodeOf(isolated)).toHaveLength(1);
    const [before] = await nodeOf(isolated);
    proxy.blackhole();
    const cutAt = performance.now();
    await isolated.waitForMessage('aborted');
    expect(performance.now() - cutAt).toBeLessThan(LEASE_MS);
    expect(await isolated.waitForMessage('node.fenced')).toMatchObject({
      node: before!.id,
      why: 'silent',
      running: 1,
    });
    // No other node declares it lost. It ends its own row when it can, and releases the job.
    expect(await nodeOf(isolated)).toMatchObject([{ endedAt: null }]);
    await proxy.refuse();
    await proxy.pass();
    const { node } = await isolated.waitForMessage(
      'node.joined',
      ({ node }) => node !== before!.id,
    );
    expect(await nodeOf(isolated)).toMatchObject([
      { id: node, endedAt: null },
      { id: before!.id, endReason: 'fenced' },
    ]);
    // The job has no retries, and still runs again.
    await untilStarted(2);
    expect(await runsOf(entry.jobRunIdentifier)).toMatchObject([
      { retry: 0, reason: 'Interrupted', nodeId: before!.id },
      { retry: 1, status: 'RUNNING', nodeId: node },
    ]);
    await isolated.kill();
    await proxy.close();
  },
);

it(
  'a job that kills its node fails after maxCrashes, and all other jobs succeed',
  LONG,
  async () => {
    let over = false;
    let deaths = 0;
    // Restarts nodes like a supervisor.
    const superviseNode = async () => {
      const node = await start({ CONCURRENCY: '5' });
      node.process.once('exit', () => {
        if (over) return;
        deaths++;
        void superviseNode();
      });
    };
    const poison = await bildad.engine.enqueueJob('POISON', {});
    const healthy = await bildad.engine.enqueueJobs(
      'HEALTHY',
      Array.from({ length: 20 }, () => ({})),
    );
    await Promise.all([superviseNode(), superviseNode()]);
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
  },
);
