import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import * as errors from '../../src/database/connection/connection-errors.js';
import { EnginePool } from '../../src/database/connection/engine-pool.js';
import { rows, type Queryable } from '../../src/database/tables.js';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// The engine's own connections: the pool detects dead connections and never uses them again, for
// every way they die.

const TIMEOUT_MS = 1_000;

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

let proxy: Proxy;
let bildad: TestApp;
beforeEach(async () => {
  proxy = await startProxy(database.url);
  bildad = await bootApp({
    providers: [SimpleJob, GatedJob],
    database: { ...database, url: proxy.url },
    options: { queryTimeout: TIMEOUT_MS, tickInterval: 100 },
  });
});
afterEach(async () => {
  await proxy.pass();
  await bildad.app.close();
  await proxy.close();
});

/** Milliseconds until a job inserted with SQL has run here. */
async function untilWorkResumes(): Promise<number> {
  const from = performance.now();
  const done = bildad.next('run.finished');
  await database.sql(
    `INSERT INTO bildad.job_queue_entries (job_template_id, job_run_identifier, priority, timeout_ms, max_retries, job_context, run_at)
     SELECT id, gen_random_uuid(), 0, 60000, 0, '{}', clock_timestamp() FROM bildad.job_templates WHERE code = 'SIMPLE'`,
  );
  await done;
  return performance.now() - from;
}

it('silently dead connections: the engine works again within the query timeout plus two seconds', async () => {
  await untilWorkResumes();
  const lost = bildad.next('database.lost');
  const back = bildad.next('database.restored');
  proxy.blackholeOpen();
  expect(await untilWorkResumes()).toBeLessThan(TIMEOUT_MS + 2_000);
  expect(await lost).toMatchObject({ error: { code: 'ETIMEDOUT' } });
  await back;
});

it('terminated backends lose only their own statements', async () => {
  await untilWorkResumes();
  await database.sql(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'nestjs-bildad'`,
  );
  expect(await untilWorkResumes()).toBeLessThan(1_000);
});

it('a refusing database is tried once a second and reported once, and work resumes when it accepts connections', async () => {
  await untilWorkResumes();
  const reported: string[] = [];
  bildad.events.on('database.lost', () => reported.push('lost'));
  bildad.events.on('database.restored', () => reported.push('back'));
  const tried: number[] = [];
  const refused = bildad.next('database.lost');
  await proxy.refuse();
  await refused;
  // A caller that enqueues all the time.
  const askUntil = performance.now() + 3_500;
  while (performance.now() < askUntil)
    await bildad.engine.enqueueJob(SimpleJob, {}).then(
      () => expect.unreachable(),
      (error: { code?: string }) => {
        expect(error.code).toBe('ECONNREFUSED');
        tried.push(performance.now());
      },
    );
  // The first attempt, made at once, and one for each second.
  expect(tried.length).toBeLessThanOrEqual(5);
  await proxy.pass();
  expect(await untilWorkResumes()).toBeLessThan(3_000);
  expect(reported).toEqual(['lost', 'back']);
});

it('results wait while the database is unreachable, and are recorded afterwards', async () => {
  const RUNS = 5;
  const runs = await Promise.all(
    Array.from({ length: RUNS }, () => bildad.engine.enqueueAndRunJob(GatedJob, {})),
  );
  const arrivals = await Promise.all(runs.map(() => GatedJob.arrival()));
  const lost = bildad.next('database.lost');
  await proxy.refuse();
  await lost;
  const errors: string[] = [];
  bildad.events.on('engine.error', ({ doing }) => errors.push(doing));
  for (const [index, { door }] of arrivals.entries()) door.open(index);
  const unanswered = bildad.next('engine.error', ({ doing }) => doing.startsWith('recording'));
  await unanswered;
  await proxy.pass();
  const ended = await Promise.all(
    runs.map(({ jobRunIdentifier }) => bildad.engine.waitForJob(jobRunIdentifier)),
  );
  expect(ended.map(({ result }) => result)).toEqual(runs.map(() => 'SUCCEEDED'));
  // Each is reported once, for any number of attempts.
  expect(errors.filter((doing) => doing.startsWith('recording')).length).toBeLessThanOrEqual(RUNS);
});

it('the engine leaves a server that became read-only and uses it again when it is writable', async () => {
  await untilWorkResumes();
  const readOnly = (on: 'on' | 'off') =>
    database.sql(
      `BEGIN READ WRITE; DO $$ BEGIN EXECUTE format(
         'ALTER DATABASE %I SET default_transaction_read_only = ${on}', current_database()); END $$; COMMIT`,
    );
  const lost = bildad.next('database.lost');
  await readOnly('on');
  try {
    // Existing sessions keep their setting, so they are terminated: after a failover all sessions
    // are new.
    await database.sql(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'nestjs-bildad'`,
    );
    await lost;
    await expect
      .poll(() =>
        bildad.engine.enqueueJob(SimpleJob, {}).then(
          () => 'done',
          (error: { code?: string }) => error.code,
        ),
      )
      .toBe('25006');
  } finally {
    await readOnly('off');
  }
  expect(await untilWorkResumes()).toBeLessThan(3_000);
});

it('a statement that exceeds its timeout is cancelled and releases its locks', async () => {
  const db = new EnginePool(bildad.dataSource, { queryTimeoutMs: TIMEOUT_MS });
  const runner = bildad.dataSource.createQueryRunner();
  await runner.startTransaction();
  await runner.query('LOCK TABLE bildad.job_configs');
  await expect(db.query('SELECT FROM bildad.job_configs')).rejects.toMatchObject({
    constructor: errors.StatementTimeoutError,
    code: '57014',
  });
  expect(
    await database.sql(
      `SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
         AND query = 'SELECT FROM bildad.job_configs'`,
    ),
  ).toEqual([]);
  await runner.rollbackTransaction();
  await runner.release();
  await db.close(0);
});

it('a slow statement neither ends other statements nor counts as an outage', async () => {
  const reported: string[] = [];
  bildad.events.on('database.lost', () => reported.push('lost'));
  const db = new EnginePool(bildad.dataSource, {
    queryTimeoutMs: TIMEOUT_MS,
    onLost: () => reported.push('lost'),
  });
  const slow = db.query('SELECT pg_sleep(60)').then(
    () => expect.unreachable(),
    (error: unknown) => error,
  );
  const pid = (connection: Queryable) =>
    rows<{ pid: number }>(connection, 'SELECT pg_backend_pid() AS pid');
  const [beside] = await pid(db);
  expect(await slow).toBeInstanceOf(errors.StatementTimeoutError);
  // The other connection stays in use.
  expect(await pid(db)).toEqual([beside]);
  // The same holds for transactions, whose timeout is the server's.
  await expect(db.transaction((within) => within.query('SELECT pg_sleep(60)'))).rejects.toThrow(
    errors.StatementTimeoutError,
  );
  expect(reported).toEqual([]);
  await db.close(0);
});

it("transactions that wait for the host's code delay no others, and the wait for a transaction is limited", async () => {
  const db = new EnginePool(bildad.dataSource, { queryTimeoutMs: 1_000 });
  const ready = Array.from({ length: 5 }, () => gate());
  const open = gate();
  const hold = (isHostPaced: boolean, n: number) =>
    db.transaction(
      async () => {
        ready[n]!.open();
        await open.opened;
      },
      { isHostPaced },
    );
  const held = [hold(true, 0), hold(true, 1)];
  await Promise.all([ready[0]!.opened, ready[1]!.opened]);
  expect(await db.transaction((within) => within.query('SELECT 1 AS one'))).toEqual([{ one: 1 }]);
  held.push(hold(false, 2), hold(false, 3));
  await Promise.all([ready[2]!.opened, ready[3]!.opened]);
  await expect(hold(false, 4)).rejects.toMatchObject({
    constructor: errors.ConnectionLostError,
    mayBeDone: false,
    message: 'no turn for a transaction of the engine became free within 3000 ms',
  });
  expect(await db.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  open.open();
  await Promise.all(held);
  await db.close(0);
});

it('the engine opens at most as many connections as its budget allows', async () => {
  await Promise.all(
    Array.from({ length: 50 }, () =>
      bildad.engine.enqueueJobs(SimpleJob, [{}, {}], { delay: '1h' }),
    ),
  );
  const [row] = await database.sql<{ count: number }>(
    `SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'nestjs-bildad'`,
  );
  // The pool and the listening connection.
  expect(row!.count).toBeLessThanOrEqual(5);
});

it('the engine works with fewer connections than its budget', async () => {
  const role = `r_${randomUUID().replaceAll('-', '')}`;
  await database.sql(`CREATE ROLE ${role} LOGIN PASSWORD 'secret' CONNECTION LIMIT 3`);
  const address = new URL(proxy.url);
  address.username = role;
  address.password = 'secret';
  try {
    await database.sql(`GRANT USAGE ON SCHEMA bildad TO ${role}`);
    await database.sql(
      `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA bildad TO ${role}`,
    );
    // One of the three belongs to the host.
    const crowded = await bootApp({
      providers: [SimpleJob],
      database: { ...database, url: address.href },
      options: { role: 'producer' },
    });
    try {
      const lost: unknown[] = [];
      crowded.events.on('database.lost', ({ error }) => lost.push(error));
      await Promise.all(
        Array.from({ length: 40 }, async (_none, n) =>
          n % 2
            ? crowded.engine.enqueueJob(SimpleJob, {}, { delay: '1h' })
            : crowded.engine.enqueueJobs(SimpleJob, [{}, {}], { delay: '1h' }),
        ),
      );
      expect(lost).toEqual([]);
    } finally {
      await crowded.app.close();
    }
  } finally {
    await database.sql(`DROP OWNED BY ${role}`);
    await database.sql(`DROP ROLE ${role}`);
  }
});
