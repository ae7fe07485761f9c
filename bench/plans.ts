/**
 * The plans of the hot statements on a million waiting entries and a million runs of history:
 * `npm run plans`. Writes docs/plans.md. Each statement is the one the engine sends, explained and
 * executed inside a transaction that is rolled back.
 */
import { writeFile } from 'node:fs/promises';
import { startPostgres } from 'nestjs-bildad/testing';
import { DataSource, type QueryRunner } from 'typeorm';
import { claimEntries, claimNext } from '../src/lifecycle/claim/claim.sql.js';
import { insertEntries, promoteScheduled } from '../src/lifecycle/enqueue/enqueue.sql.js';
import { writeLateRowsOfLostNodes } from '../src/lifecycle/run/late-run-rows.sql.js';
import { finishRuns, reopenOrphans } from '../src/lifecycle/finish/finish-runs.sql.js';
import { acquireGuard } from '../src/node/pass.sql.js';
import { migrate } from '../src/database/migrate.js';
import { quarantineMalformed } from '../src/lifecycle/claim/quarantine.sql.js';
import {
  expiredFacts,
  findEntry,
  findLastRun,
  queuePosition,
  renewRuns,
  runsToStop,
} from '../src/lifecycle/run/run.sql.js';
import { tablesOf, type Queryable } from '../src/database/tables.js';
import { unrunnableJobs } from '../src/node/unrunnable-jobs.sql.js';

const ROWS = Number(process.argv[2] ?? 1_000_000);
const tables = tablesOf('bildad');
const CODES = Array.from({ length: 10 }, (_value, n) => `T${n + 1}`);
const AUTO_EXPLAIN = [
  "LOAD 'auto_explain'",
  'SET client_min_messages = log',
  'SET auto_explain.log_min_duration = 0',
  'SET auto_explain.log_nested_statements = on',
  'SET auto_explain.log_analyze = on',
  'SET auto_explain.log_buffers = on',
  'SET auto_explain.log_timing = off',
];
const me = { nodeId: 'me', leaseMs: 15_000 };

const server = await startPostgres({
  settings: { shared_buffers: '512MB', max_wal_size: '4GB' },
});
const dataSource = await new DataSource({
  type: 'postgres',
  url: server.url,
}).initialize();
try {
  await migrate(dataSource, tables);
  await fill();
  const sections = await explainAll();
  const text = `# Plans of the hot statements

Made by \`npm run plans\`: ${ROWS.toLocaleString('en')} waiting entries (a tenth of them scheduled), ${ROWS.toLocaleString('en')} runs of history and 500 running ones,
PostgreSQL ${await version()}. Every statement reaches its rows through an index, but for the ten templates, which fill one page,
and the statements that read all entries once per lease; times are of one run on a small machine. Claims, ends and enqueues are functions: the plans are of the statements in
them, in their order.

${sections.join('\n')}`;
  await writeFile('docs/plans.md', text);
  console.log(text);
} finally {
  await dataSource.destroy();
  await server.stop();
}

async function fill(): Promise<void> {
  await dataSource.query(`INSERT INTO ${tables.configs} (name) VALUES ('default')`);
  await dataSource.query(
    `INSERT INTO ${tables.templates} (name, code, job_module_name) SELECT 'T' || n, 'T' || n, '' FROM generate_series(1, 10) n`,
  );
  await dataSource.query(
    `INSERT INTO ${tables.entries} (job_template_id, job_run_identifier, priority, timeout_ms, max_retries, job_context, scheduled, run_at)
     SELECT 1 + n % 10, 'waiting-' || n, n % 7, 60000, 3, jsonb_build_object('n', n), n % 10 = 0,
            clock_timestamp() + CASE WHEN n % 10 = 0 THEN n - ${ROWS} / 100 ELSE 0 END * interval '1 s'
     FROM generate_series(1, $1::int) n`,
    [ROWS],
  );
  await dataSource.query(
    `INSERT INTO ${tables.runs} (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id, status, result,
       job_context, available_at, timeout_at, expires_at, ended_at)
     SELECT 1 + n % 10, -n, 'past-' || n, 0, 'past-' || n || '#0', 'node' || n % 3, 'DONE', 'SUCCEEDED', jsonb_build_object('n', n),
            now(), now(), now(), now() FROM generate_series(1, $1::int) n`,
    [ROWS],
  );
  await dataSource.query(`UPDATE ${tables.entries} SET scheduled = scheduled WHERE id % 50 = 0`);
  await dataSource.query(
    `INSERT INTO ${tables.nodes} (id, engine_name, host, pid, version, template_codes, concurrency, expires_at, renewed_until)
     SELECT 'node' || n, 'default', '', 0, '', $1, 10, now() + interval '1 d', now() + interval '1 d' FROM generate_series(1, 3) n`,
    [CODES],
  );
  await claimNext(dataSource, tables, me, CODES, 500);
  await dataSource.query(`VACUUM (ANALYZE) ${tables.entries}`);
  await dataSource.query(`VACUUM (ANALYZE) ${tables.runs}`);
}

async function explainAll(): Promise<string[]> {
  const running = (
    await dataSource.query<{ id: string }[]>(
      `SELECT id::text FROM ${tables.runs} WHERE status = 'RUNNING' ORDER BY id`,
    )
  ).map(({ id }) => id);
  const all = CODES;
  const entry = (n: number) => ({
    jobTemplateId: '1',
    jobRunIdentifier: `new-${n}`,
    named: true,
    priority: 5,
    timeoutMs: 1000,
    maxRetries: 3,
    backoff: null,
    jobContext: '{"n":1}',
    context: { n: 1 },
    runAt: null,
    delayMs: 0,
    retryOfJobRunId: null,
    startBefore: null,
    retryOnce: false,
  });
  const end = (jobRunId: string, n: number) => ({
    jobRunId,
    jobQueueEntryId: '0',
    outcome: n % 5 ? ('completed' as const) : ('failed' as const),
    result: n % 5 ? ('SUCCEEDED' as const) : ('FAILED' as const),
    reason: null,
    error: null,
    output: null,
    entry: n % 5 ? ('remove' as const) : ('reopen' as const),
    delayMs: 0,
    counts: true,
    onlyIfExpired: false,
    hasLateRow: false,
  });
  const [waiting] = await dataSource.query<{ id: string }[]>(
    `SELECT id::text FROM ${tables.entries} WHERE job_run_identifier = 'waiting-777777' OR id = 777 LIMIT 1`,
  );
  const statements: [string, (db: Queryable) => Promise<unknown>][] = [
    ['claim the next 1', (db) => claimNext(db, tables, me, all, 1)],
    ['claim the next 100', (db) => claimNext(db, tables, me, all, 100)],
    [
      'claim the next 100 behind the last one',
      (db) =>
        claimNext(db, tables, me, all, 100, {
          after: { priority: 0, id: '700000' },
        }),
    ],
    [
      'claim the next 100, their rows deferred',
      (db) => claimNext(db, tables, me, all, 100, { lateRows: true }),
    ],
    ['claim the next 100 of one template in ten', (db) => claimNext(db, tables, me, ['T3'], 100)],
    ['claim one entry by id', (db) => claimEntries(db, tables, me, [waiting!.id])],
    ['end 1 run', (db) => finishRuns(db, tables, running.slice(0, 1).map(end))],
    ['end 100 runs', (db) => finishRuns(db, tables, running.slice(0, 100).map(end))],
    ['enqueue 1', (db) => insertEntries(db, tables, [entry(0)])],
    [
      'enqueue 100',
      (db) =>
        insertEntries(
          db,
          tables,
          all.flatMap((_id, n) => all.map((_other, m) => entry(n * 10 + m))),
        ),
    ],
    ['promote scheduled entries', (db) => promoteScheduled(db, tables, 1000)],
    ['find expired runs', (db) => expiredFacts(db, tables, 1000)],
    ['reopen orphaned entries', (db) => reopenOrphans(db, tables, 1000)],
    ['write late run rows of lost nodes', (db) => writeLateRowsOfLostNodes(db, tables, 1000)],
    ['quarantine malformed entries', (db) => quarantineMalformed(db, tables, 1000)],
    ['find unrunnable jobs, each template has a node', (db) => unrunnableJobs(db, tables, 0)],
    [
      'find unrunnable jobs, one template has no node',
      async (db) => {
        await db.query(
          `UPDATE ${tables.nodes} SET template_codes = array_remove(template_codes, 'T3')`,
        );
        return unrunnableJobs(db, tables, 0);
      },
    ],
    [
      'renew 100 leases',
      (db) =>
        renewRuns(db, tables, 'me', 15_000, running.slice(0, 100), {
          abandoned: 0,
          processes: [],
          facts: null,
        }),
    ],
    ['find runs to stop', (db) => runsToStop(db, tables, 'me')],
    ['acquire the guard', (db) => acquireGuard(db, tables, 'default', 'me', true)],
    ['last run of an identifier', (db) => findLastRun(db, tables, 'past-4711')],
    ['entry of an identifier', (db) => findEntry(db, tables, { jobRunIdentifier: 'waiting-4711' })],
    ['queue position of an entry near the head', (db) => queuePosition(db, tables, 'waiting-7')],
  ];
  const sections: string[] = [];
  for (const [title, run] of statements) sections.push(await explain(title, run));
  return sections;
}

/** The second of two runs: caches are warm, as they are in an engine that works. */
async function explain(title: string, run: (db: Queryable) => Promise<unknown>): Promise<string> {
  const runner = dataSource.createQueryRunner();
  try {
    await recorded(runner, run);
    const plans = await recorded(runner, run);
    const time = plans.reduce((sum, { ms }) => sum + ms, 0).toFixed(3);
    const text = plans.map(({ plan }) => plan).join('\n\n');
    const scans = [...text.matchAll(/Seq Scan on (\w+)/g)].map(([, table]) => table);
    console.error(`${title}: ${time} ms ${scans.length ? `SEQ SCAN on ${scans.join(', ')}` : ''}`);
    return `## ${title}: ${time} ms\n\n\`\`\`\n${text}\n\`\`\`\n`;
  } finally {
    await runner.release();
  }
}

/** What auto_explain says of each statement, those within the functions as well. */
async function recorded(
  runner: QueryRunner,
  run: (db: Queryable) => Promise<unknown>,
): Promise<{ ms: number; plan: string }[]> {
  const client = (await runner.connect()) as {
    on(event: 'notice', heard: (notice: { message: string }) => void): void;
    removeAllListeners(event: 'notice'): void;
  };
  const messages: string[] = [];
  for (const setting of AUTO_EXPLAIN) await runner.query(setting);
  client.on('notice', ({ message }) => messages.push(message));
  await runner.startTransaction();
  try {
    await run(runner);
  } finally {
    await runner.rollbackTransaction();
    client.removeAllListeners('notice');
  }
  // The call of a function is explained last, and includes what it calls.
  const found = messages
    .map(planOf)
    .filter(({ plan }) => plan !== '' && !plan.startsWith('Function Scan'));
  return found;
}

function planOf(message: string): { ms: number; plan: string } {
  const lines = message.split('\n');
  const first = lines.findIndex((line) => /\(cost=.*\(actual/.test(line));
  return {
    ms: Number(/duration: ([\d.]+) ms/.exec(message)?.[1] ?? 0),
    plan:
      first < 0
        ? ''
        : lines
            .slice(first)
            .map((line) => line.replace(/\(cost=\S+ rows=\d+ width=\d+\) /, ''))
            .join('\n')
            .trimEnd(),
  };
}

async function version(): Promise<string> {
  const [row] = await dataSource.query<{ server_version: string }[]>('SHOW server_version');
  return row!.server_version;
}
