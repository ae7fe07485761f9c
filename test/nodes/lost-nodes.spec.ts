import { Socket } from 'node:net';
import { JobsService } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';
import { bootHost, type HostOptions } from '../support/host.js';

// Which nodes are lost, what that means for their jobs, and how a node proves that it is alive.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [GatedJob, SimpleJob],
    options: { concurrency: 5 },
  });
  await bildad.jobs.updateJobConfig({ leaseMs: 1_000 });
  await bildad.engine.runJobEngine();
});
afterEach(() =>
  bildad.sql(
    "DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs; DELETE FROM bildad.job_nodes WHERE ended_at IS NOT NULL OR id = 'dead'",
  ),
);
afterAll(() => bildad.close());

/** Inserts jobs that run on a node without a heartbeat for a second, in the order of their starts. */
async function runOnDeadNode(
  identifiers: string[],
  { concurrency = 10, maxRetries = 3 } = {},
): Promise<void> {
  for (const jobRunIdentifier of identifiers)
    await bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier, maxRetries });
  await bildad.sql(
    `INSERT INTO bildad.job_nodes (id, engine_name, host, pid, version, concurrency, expires_at, renewed_until)
     VALUES ('dead', 'default', 'there', 1, '0', $1, now() - interval '1 s', now() - interval '1 s')`,
    [concurrency],
  );
  await bildad.sql(
    `WITH born AS (
       INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
         job_context, available_at, timeout_at, expires_at, inserted_at, updated_at)
       SELECT job_template_id, id, job_run_identifier, 0, job_run_identifier, 'dead', '{}', run_at, now() + interval '1 h',
         now() - interval '1 s', now(), now() FROM bildad.job_queue_entries ORDER BY id RETURNING id, job_queue_entry_id)
     UPDATE bildad.job_queue_entries e SET status = 'RUNNING', retry = 1, current_job_run_id = born.id
     FROM born WHERE born.job_queue_entry_id = e.id`,
  );
}

/** Runs passes until one has declared the node lost. The passes start no jobs. */
async function untilDeclaredLost(): Promise<void> {
  await bildad.sql('UPDATE bildad.job_templates SET active = false');
  await expect
    .poll(async () => {
      await bildad.engine.runJobEngine();
      return bildad.sql(
        "SELECT end_reason FROM bildad.job_nodes WHERE id = 'dead' AND ended_at IS NOT NULL",
      );
    })
    .toEqual([{ end_reason: 'lost' }]);
  await bildad.sql('UPDATE bildad.job_templates SET active = true');
}

it('a lease that would outlast its lost node is shortened', async () => {
  await runOnDeadNode(['held']);
  await bildad.sql(
    `UPDATE bildad.job_nodes SET heartbeat_at = expires_at - interval '1 s' WHERE id = 'dead';
     UPDATE bildad.job_runs SET expires_at = now() + interval '1 h'`,
  );
  await untilDeclaredLost();
  const [run] = await bildad.sql(
    `SELECT expires_at <= clock_timestamp() + interval '1 s' AS soon FROM bildad.job_runs`,
  );
  expect(run).toEqual({ soon: true });
});

const queue = () =>
  bildad.sql(
    `SELECT job_run_identifier AS name, crashes, uncounted_runs AS uncounted, status
     FROM bildad.job_queue_entries ORDER BY id`,
  );
const end = () =>
  bildad.sql('SELECT job_run_identifier AS name, reason FROM bildad.job_runs ORDER BY id');

it('the jobs that a lost node may have been running are charged a crash, and none a retry', async () => {
  await runOnDeadNode(['first', 'second', 'ahead'], { concurrency: 2 });
  await untilDeclaredLost();
  expect(await queue()).toEqual([
    { name: 'first', crashes: 1, uncounted: 1, status: 'AVAILABLE' },
    { name: 'second', crashes: 1, uncounted: 1, status: 'AVAILABLE' },
    { name: 'ahead', crashes: 0, uncounted: 1, status: 'AVAILABLE' },
  ]);
});

it('only jobs with an earlier crash are charged, if there are any', async () => {
  await runOnDeadNode(['neighbour', 'suspect']);
  await bildad.sql(
    "UPDATE bildad.job_queue_entries SET crashes = 1 WHERE job_run_identifier = 'suspect'",
  );
  await untilDeclaredLost();
  expect(await queue()).toMatchObject([
    { name: 'neighbour', crashes: 0 },
    { name: 'suspect', crashes: 2 },
  ]);
});

it('a job that reaches maxCrashes fails without retry', async () => {
  await runOnDeadNode(['neighbour', 'poison']);
  await bildad.sql(
    "UPDATE bildad.job_queue_entries SET crashes = 2 WHERE job_run_identifier = 'poison'",
  );
  await untilDeclaredLost();
  expect(await queue()).toMatchObject([{ name: 'neighbour' }]);
  expect(await end()).toEqual([
    { name: 'neighbour', reason: 'Expired' },
    { name: 'poison', reason: 'Crashed' },
  ]);
});

it('a job with maxRetries: 0 is not retried after its node is lost', async () => {
  await runOnDeadNode(['once'], { maxRetries: 0 });
  await untilDeclaredLost();
  expect(await queue()).toEqual([]);
  expect(await end()).toEqual([{ name: 'once', reason: 'Expired' }]);
});

it('a node runs one job with a crash count at a time, and other jobs beside it', async () => {
  const { engine, sql } = bildad;
  for (const name of ['suspect 1', 'suspect 2', 'other 1', 'other 2'])
    await engine.enqueueJob(GatedJob, { name }, { jobRunIdentifier: name });
  await sql(
    "UPDATE bildad.job_queue_entries SET crashes = 1, scheduled = true WHERE job_run_identifier LIKE 'suspect%'",
  );
  const arrived: string[] = [];
  const doors = new Map<string, (value: unknown) => void>();
  const arrive = async () => {
    const { context, door } = await GatedJob.arrival();
    arrived.push(context.name!);
    doors.set(context.name!, (value) => door.open(value));
  };
  const pass = async () => {
    await engine.runJobEngine();
    return sql(
      "SELECT job_run_identifier AS name FROM bildad.job_runs WHERE status = 'RUNNING' ORDER BY 1",
    );
  };
  // A heartbeat reports to the node that there are jobs with a crash count.
  await expect
    .poll(pass)
    .toEqual([{ name: 'other 1' }, { name: 'other 2' }, { name: 'suspect 1' }]);
  await Promise.all([arrive(), arrive(), arrive()]);
  expect(await pass()).toHaveLength(3);
  const first = engine.waitForJob('suspect 1');
  doors.get('suspect 1')!(null);
  await first;
  await expect
    .poll(pass)
    .toEqual([{ name: 'other 1' }, { name: 'other 2' }, { name: 'suspect 2' }]);
  await arrive();
  expect(arrived.toSorted()).toEqual(['other 1', 'other 2', 'suspect 1', 'suspect 2']);
  const rest = ['other 1', 'other 2', 'suspect 2'].map((name) => engine.waitForJob(name));
  for (const open of doors.values()) open(null);
  await Promise.all(rest);
});

it('a forward jump of the database clock loses no live node and no job', async () => {
  const { engine, jobs, sql } = bildad;
  const other = await bootApp({ database: bildad.database });
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { door } = await GatedJob.arrival();
  await expect.poll(() => jobs.listNodes()).toHaveLength(2);
  // A jump of the clock makes all leases expire at once.
  await sql(
    `WITH n AS (UPDATE bildad.job_nodes SET expires_at = now() - interval '1 h', renewed_until = now() - interval '1 h')
     UPDATE bildad.job_runs SET expires_at = now() - interval '1 h' WHERE status = 'RUNNING'`,
  );
  try {
    const expired: unknown[] = [];
    await expect
      .poll(async () => {
        expired.push(...(await other.engine.runJobEngine()).expire);
        const [row] = await sql(
          'SELECT expires_at > now() AS renewed FROM bildad.job_runs WHERE id = $1',
          [run.id],
        );
        return row.renewed;
      })
      .toBe(true);
    expect(expired).toEqual([]);
  } finally {
    await other.close();
  }
  const ended = engine.waitForJob(run.jobRunIdentifier);
  door.open(null);
  expect(await ended).toMatchObject({ retry: 0, result: 'SUCCEEDED' });
});

it('a run of a live but stuck node is neither listed as expired nor taken over', async () => {
  const { engine, jobs, sql } = bildad;
  await runOnDeadNode(['stuck']);
  await sql("UPDATE bildad.job_nodes SET expires_at = now() + interval '1 h' WHERE id = 'dead'");
  expect(await jobs.listExpiredJobs()).toEqual([]);
  expect((await engine.runJobEngine()).expire).toEqual([]);
  const [run] = await jobs.listRunningJobRuns();
  await expect(engine.launchJobProcess(run!)).rejects.toMatchObject({
    code: 'JOB_NOT_AVAILABLE',
  });
});

it('a node that was declared lost joins again, and releases its jobs', async () => {
  const { engine, jobs, sql, next } = bildad;
  await expect.poll(() => jobs.listNodes()).toHaveLength(1);
  const { id } = (await jobs.listNodes())[0]!;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  const { job } = await GatedJob.arrival();
  const fenced = next('node.fenced');
  const joined = next('node.joined');
  await sql("UPDATE bildad.job_nodes SET ended_at = now(), end_reason = 'lost' WHERE id = $1", [
    id,
  ]);
  expect(await fenced).toEqual({ node: id, why: 'declared', running: 1 });
  expect(job.signal.aborted).toBe(true);
  const { node } = await joined;
  expect(node).not.toBe(id);
  await expect
    .poll(() => jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier))
    .toMatchObject({ status: 'AVAILABLE', retry: 1, uncountedRuns: 1 });
  expect((await jobs.listNodes()).map((row) => [row.id, row.endReason])).toEqual([
    [node, null],
    [id, 'lost'],
  ]);
  await engine.runJobEngine();
  const second = await GatedJob.arrival();
  const ended = engine.waitForJob(run.jobRunIdentifier);
  second.door.open(null);
  expect(await ended).toMatchObject({ nodeId: node, result: 'SUCCEEDED' });
});

it('a node lists its properties and its shutdown', async () => {
  const app = await bootApp({
    providers: [SimpleJob],
    options: { concurrency: 7 },
  });
  await expect.poll(() => app.jobs.listNodes()).toHaveLength(1);
  expect(await app.jobs.listNodes()).toMatchObject([
    {
      engineName: 'default',
      pid: process.pid,
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      templateCodes: ['SIMPLE'],
      concurrency: 7,
      running: 0,
      blockedSince: null,
      endedAt: null,
      endReason: null,
    },
  ]);
  await app.app.close();
  expect(await app.database.sql('SELECT end_reason FROM bildad.job_nodes')).toEqual([
    { end_reason: 'shutdown' },
  ]);
  await app.close();
});

it.each([
  [
    'resolves its password asynchronously',
    {
      password: () => Promise.resolve(new URL(bildad.database.url).password || 'any'),
    },
  ],
  ['opens its own sockets', { extra: { stream: () => new Socket() } }],
])('a node sends heartbeats with a DataSource that %s', async (_what, typeorm) => {
  const app = await bootHost({ url: '', typeorm: connectionOptions(typeorm) });
  const heartbeats = async () =>
    (await app.get(JobsService).listNodes())
      .filter(({ templateCodes }) => templateCodes.length === 0)
      .map(({ heartbeats }) => Number(heartbeats));
  await expect.poll(async () => (await heartbeats())[0] ?? 0).toBeGreaterThan(0);
  await app.close();
});

it('a node sends heartbeats again after its password callback hung once', async () => {
  let hangs = false;
  const app = await bootHost({
    url: '',
    typeorm: connectionOptions({
      password: () => {
        if (!hangs) return Promise.resolve(new URL(bildad.database.url).password);
        hangs = false;
        return new Promise<string>(() => undefined);
      },
    }),
  });
  const heartbeats = () =>
    bildad.sql(
      `SELECT id, heartbeats FROM bildad.job_nodes WHERE template_codes = '{}' AND ended_at IS NULL`,
    );
  // The thread has sent one: before that, the first connection would use up the lease.
  await expect
    .poll(heartbeats)
    .toEqual([{ id: expect.anything(), heartbeats: expect.not.stringMatching(/^0$/) }]);
  hangs = true;
  await bildad.sql(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE application_name LIKE '% heartbeat' AND datname = current_database()`,
  );
  await expect.poll(() => hangs).toBe(false);
  const [last] = await heartbeats();
  await expect
    .poll(heartbeats, { timeout: 15_000 })
    .toEqual([{ id: last.id, heartbeats: expect.not.stringMatching(last.heartbeats) }]);
  await app.close();
});

/** The database URL as separate options, combined with the given ones. */
function connectionOptions(typeorm: HostOptions['typeorm']): HostOptions['typeorm'] {
  const { hostname, port, username, password, pathname } = new URL(bildad.database.url);
  return {
    url: undefined,
    host: hostname,
    port: Number(port),
    username,
    password,
    database: pathname.slice(1),
    ...typeorm,
  } as HostOptions['typeorm'];
}
