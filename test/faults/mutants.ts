import pg from 'pg';
import type { Invariant } from './checker.js';
import type { FaultKind, FaultWeights } from './schedule.js';
import type { Weights } from './workload.js';

/** Circumstances in which a bug shows soon. */
export interface Focus {
  faults?: FaultWeights;
  lasts?: Partial<Record<FaultKind, readonly [number, number]>>;
  pause?: readonly [number, number];
  mix?: Weights;
  burst?: number;
  burstMix?: Weights;
  perSecond?: number;
  /** Of all jobs. */
  priority?: number;
  workers?: number;
  concurrency?: number;
  /** Of each worker's clock against that of the database. */
  skewsMs?: readonly number[];
}

export interface Mutant {
  name: string;
  what: string;
  /** What is changed in the functions of the database. */
  sql?: readonly { functionName: string; take: string; put: string }[];
  /** What the checker must say about it. */
  caughtBy: Invariant;
  says: RegExp;
  focus: Focus;
  /** The circumstances alone. */
  control?: boolean;
}

/** Nodes that come back after their leases were over, with work in hand. */
const ZOMBIES: Focus = {
  faults: { freeze: 6, blackhole: 2 },
  lasts: { freeze: [4_500, 7_000], blackhole: [4_500, 7_000] },
  pause: [600, 1_500],
  mix: { long: 6, ok: 2 },
  perSecond: 12,
  burst: 0,
};

/** Bugs that the lab must find. They are planted in the database and the processes of one round, not in src. */
export const MUTANTS: readonly Mutant[] = [
  {
    name: 'finish-any-status',
    what: 'an end lands on a run that is DONE',
    sql: [
      {
        functionName: 'finish_job_runs',
        take: ` AND r.status = 'RUNNING'
        RETURNING`,
        put: `
        RETURNING`,
      },
      {
        functionName: 'finish_job_runs',
        take: ` AND r.status = 'RUNNING' AND (i.only_if_expired`,
        put: ` AND (i.only_if_expired`,
      },
    ],
    caughtBy: 'I3',
    says: /succeeded \d+ times/,
    focus: ZOMBIES,
  },
  {
    name: 'expire-unfenced',
    what: 'a run expires by an earlier look, though its lease was renewed since',
    sql: [
      {
        functionName: 'finish_job_runs',
        take: ` AND (i.only_if_expired IS NOT TRUE OR r.expires_at <= moment)`,
        put: '',
      },
    ],
    caughtBy: 'I4',
    says: /before its lease was over/,
    // Looks that are as good as old ones: they see leases that are not over (`hastyLook`).
    focus: {
      faults: { freeze: 1 },
      pause: [300, 900],
      mix: { long: 1 },
      perSecond: 4,
      burst: 0,
    },
  },
  {
    name: 'entry-of-any-run',
    what: 'an end takes the entry away from a newer run',
    sql: [
      {
        functionName: 'finish_job_runs',
        take: " AND e.current_job_run_id = i.run_id AND e.status = 'RUNNING'",
        put: " AND e.status = 'RUNNING'",
      },
    ],
    caughtBy: 'I3',
    says: /its handler/,
    // Run rows are late where jobs end by the hundred; an operator makes the older run.
    focus: {
      faults: { delay: 1 },
      lasts: { delay: [100, 200] },
      mix: { stopped: 1, ok: 1 },
      burst: 2_000,
      burstMix: { fast: 98, stopped: 2 },
      perSecond: 4,
      workers: 1,
      concurrency: 60,
    },
  },
  {
    name: 'node-clock',
    what: "leases and the guard go by the node's clock, and a node that beats is not spared",
    caughtBy: 'I4',
    says: /which nothing disturbed/,
    focus: {
      faults: { xmin: 1 },
      mix: { ok: 6, long: 4 },
      burst: 0,
      skewsMs: [0, -20_000, 20_000],
    },
  },
  {
    name: 'no-jitter',
    what: 'pauses before retries are not random',
    caughtBy: 'jitter',
    says: /pauses after run number/,
    focus: {
      faults: { reset: 1 },
      mix: { flaky: 1, failing: 1 },
      burst: 0,
    },
  },
  {
    name: 'no-lock-timeout',
    what: 'a batch of ends waits for locked rows as long as it takes',
    sql: [
      {
        functionName: 'finish_job_runs',
        take: 'IF lock_ms IS NOT NULL THEN',
        put: 'IF false THEN',
      },
    ],
    caughtBy: 'I16',
    says: /was recorded \d+ ms after|database for lost/,
    focus: {
      faults: { lockRuns: 1, lockEntries: 1 },
      pause: [300, 800],
      mix: { ok: 6, long: 6 },
      burst: 0,
    },
  },
  {
    name: 'rare-full-scan',
    what: 'a claim begins behind the last one for ten seconds at a time',
    caughtBy: 'I16',
    says: /began \d+ ms after it was due/,
    // Jobs that come back to the queue lie before the resume point.
    focus: {
      faults: { xmin: 1 },
      mix: { flaky: 1 },
      burst: 100,
      burstMix: { fast: 1 },
      priority: 5,
    },
  },
];

/** Plants the part of a mutant that is in the database. @throws where the text to take out is not there */
export async function plantInDatabase(url: string, { name, sql = [] }: Mutant): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    for (const { functionName, take, put } of sql) {
      const { rows } = await client.query<{ definition: string }>(
        'SELECT pg_get_functiondef(oid) AS definition FROM pg_proc WHERE proname = $1',
        [functionName],
      );
      const [found] = rows;
      if (rows.length !== 1 || !found!.definition.includes(take))
        throw new Error(
          `mutant ${name}: expected one function ${functionName} with "${take.trim()}", got ${rows.length} of that name${rows.length === 1 ? ', without that text' : ''}`,
        );
      await client.query(found!.definition.replace(take, () => put));
    }
  } finally {
    await client.end();
  }
}

/** Plants the part of a mutant that is in this process, before the app is made. */
export function plantInProcess(name: string | undefined, skewMs: number): void {
  if (name === 'no-jitter') Math.random = () => 0.5;
  if (name?.startsWith('expire-unfenced')) rewriteStatements(hastyLook);
  if (name === 'rare-full-scan') withoutFullScans(FULL_SCAN_EVERY_MS);
  if (name?.startsWith('node-clock')) rewriteStatements(unsparing);
  if (name === 'node-clock')
    rewriteStatements((sql) =>
      sql.replaceAll('clock_timestamp()', `to_timestamp(${(Date.now() + skewMs) / 1_000})`),
    );
}

/** The look for runs whose leases are over takes all there are. A circumstance: their end finds out. */
const hastyLook = (sql: string) =>
  sql.replace(
    /r\.expires_at <= clock_timestamp\(\) AND NOT [\s\S]*(?=ORDER BY r\.id LIMIT \$1)/,
    `r.expires_at <= clock_timestamp() + interval '1 h' `,
  );

/** Whether a node beats is not asked: its leases alone tell. A circumstance: beats are counted, and no clock changes them. */
const unsparing = (sql: string) =>
  sql.replaceAll(/ AND NOT EXISTS \(SELECT FROM \S+ owner WHERE [^)]*\)\)/g, '');

const FULL_SCAN_EVERY_MS = 10_000;

/** A claim that would begin at the head of the index begins behind the last such entry, most of the time. */
function withoutFullScans(everyMs: number): void {
  let nextAt = performance.now() + everyMs;
  let after: unknown[] = [null, null];
  rewriteQueries((sql, values) => {
    if (!values || !/FROM \S*claim_jobs\S* \(/.test(sql)) return [sql, values];
    const [priority, id] = values.slice(4, 6);
    if (id !== null) after = [priority, id];
    else if (performance.now() >= nextAt) {
      nextAt = performance.now() + everyMs;
      after = [null, null];
    }
    return [sql, values.toSpliced(4, 2, ...after)];
  });
}

const rewriteStatements = (rewrite: (sql: string) => string) =>
  rewriteQueries((sql, values) => [rewrite(sql), values]);

type Rewrite = (sql: string, values: unknown[] | undefined) => [string, unknown[] | undefined];

function rewriteQueries(rewrite: Rewrite): void {
  const prototype = pg.Client.prototype as {
    query: (...given: unknown[]) => unknown;
  };
  const { query } = prototype;
  prototype.query = function (this: unknown, ...given: unknown[]) {
    const [first, second, ...rest] = given;
    if (typeof first !== 'string') return query.apply(this, given);
    if (!Array.isArray(second))
      return query.call(this, rewrite(first, undefined)[0], ...given.slice(1));
    return query.call(this, ...rewrite(first, second), ...rest);
  };
}
