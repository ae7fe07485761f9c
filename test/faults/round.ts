import { mkdirSync, rmSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import type { PostgresServer } from 'nestjs-bildad/testing';
import { check, type Violation } from './checker.js';
import { Member } from './fleet.js';
import { AUDIT, readHistory, type History } from './history.js';
import { Ledger, nowMs, recordStalls } from './ledger.js';
import { plantInDatabase, type Focus, type Mutant } from './mutants.js';
import { Nemesis } from './nemesis.js';
import { FaultProxy } from './proxy.js';
import { schedule, type PlannedFault } from './schedule.js';
import { LEASE_MS, LIMITS } from './settings.js';
import { socketsTo } from './sockets.js';
import { BURST_MIX, MIX } from './workload.js';

export interface RoundOptions {
  seed: number;
  /** Of faults; the drain comes on top. */
  seconds: number;
  workers: number;
  /** Jobs that a worker runs at once. */
  concurrency: number;
  /** Jobs that are enqueued each second, beside the bursts. */
  perSecond: number;
  /** Jobs that do nothing, all at once every three seconds. */
  burst: number;
  /** For the ledgers. */
  folder: string;
  mutant?: Mutant;
}

export interface Round {
  history: History;
  violations: Violation[];
  planned: PlannedFault[];
  drainMs: number;
  deadlocks: number;
}

const DRAIN_MS = 40_000;
/** What a planted bug has stuck stays so. */
const DRAIN_WITH_BUG_MS = 12_000;
const ANSWERS_MS = 30_000;
const SAMPLE_MS = 500;
/** Of a round: nothing is wrong then but that rows are locked, snapshots held and links long. */
const CONTENTION_SHARE = 0.35;

/** A schedule of faults on a database of its own, then peace, a drain, a shutdown, and the checks. */
export async function round(server: PostgresServer, given: RoundOptions): Promise<Round> {
  const focus = given.mutant?.focus ?? {};
  const options = { ...given, ...focus };
  const { seed, mutant, folder } = options;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const ledger = new Ledger(folder, 'lab');
  const offset = Date.now() - nowMs();
  const url = await createDatabase(server, `lab_${seed}_${Date.now()}`);
  const members = await enlist(url, options, focus, ledger);
  const { client, workers } = members;
  const planned = schedule({
    seed,
    ms: options.seconds * 1_000,
    ...(!mutant && { contentionMs: options.seconds * 1_000 * CONTENTION_SHARE }),
    ...focus,
    workers: workers.map(({ name }) => name),
  });
  const sampling = setInterval(() => {
    for (const { by, proxy, process } of workers)
      if (process?.pid)
        ledger.write({
          what: 'connections',
          worker: by,
          open: socketsTo(proxy.port, process.pid),
        });
  }, SAMPLE_MS);
  const stalls = recordStalls(ledger);
  let drainMs: number;
  try {
    await client.start();
    await ask(url, `UPDATE bildad.job_configs SET lease_ms = ${LEASE_MS}`);
    await ask(url, AUDIT);
    if (mutant) await plantInDatabase(url, mutant);
    await Promise.all(workers.map((worker) => worker.start()));
    client.process!.send('start');
    await new Nemesis({ server, url, workers, client, ledger }).run(planned);
    drainMs = await calmDown(url, options, members, ledger);
    await Promise.all(workers.map((worker) => worker.end('terminate')));
  } finally {
    clearInterval(sampling);
    clearInterval(stalls);
    await Promise.all([...workers, client].map((one) => one.end('kill')));
  }
  const [stats] = await ask<{ deadlocks: number }>(
    url,
    'SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()',
  );
  const history = await readHistory(url, folder, offset, LIMITS);
  await ask(server.url, `DROP DATABASE ${new URL(url).pathname.slice(1)} WITH (FORCE)`);
  return {
    history,
    violations: check(history),
    planned,
    drainMs,
    deadlocks: stats?.deadlocks ?? 0,
  };
}

interface Members {
  client: Member;
  workers: Member[];
}

async function enlist(
  url: string,
  options: RoundOptions,
  focus: Focus,
  ledger: Ledger,
): Promise<Members> {
  const port = Number(new URL(url).port);
  const { burst, perSecond } = options;
  const load = { burst, perSecond, mix: MIX, burstMix: BURST_MIX, ...focus };
  const member = async (name: string, program: 'worker' | 'client', skewMs: number) => {
    const proxy = await FaultProxy.start(port);
    const through = new URL(url);
    through.port = String(proxy.port);
    through.searchParams.set('application_name', name);
    return new Member(
      name,
      proxy,
      program,
      {
        DATABASE_URL: through.href,
        LAB_LEDGERS: options.folder,
        LAB_SEED: String(options.seed),
        LAB_LOAD: JSON.stringify(load),
        LAB_CONCURRENCY: String(options.concurrency),
        LAB_SKEW_MS: String(skewMs),
        ...(options.mutant && { LAB_MUTANT: options.mutant.name }),
      },
      ledger,
    );
  };
  const workers: Member[] = [];
  for (let n = 0; n < options.workers; n++)
    workers.push(await member(`w${n + 1}`, 'worker', focus.skewsMs?.[n] ?? 0));
  return { client: await member('client', 'client', 0), workers };
}

/** Everything is healed: all that was asked for comes to its end. @returns milliseconds */
async function calmDown(
  url: string,
  { workers: count, concurrency, mutant }: RoundOptions,
  { client, workers }: Members,
  ledger: Ledger,
): Promise<number> {
  await Promise.all(
    workers
      .filter(({ lacks }) => lacks !== null)
      .map(async (worker) => {
        await worker.terminate();
        await worker.start();
      }),
  );
  while (!workers.every(({ isReady }) => isReady)) await wait(20);
  ledger.write({ what: 'calm' });
  const began = performance.now();
  // Enough for each of them, whoever is first.
  client.process!.send({ probe: count * concurrency * 3 });
  const stopped = new Promise<void>((resolve) => {
    client.process!.on('message', (said) => {
      if (said === 'stopped') resolve();
    });
  });
  client.process!.send('stop');
  await Promise.race([stopped, wait(ANSWERS_MS)]);
  const patience = mutant && !mutant.control ? DRAIN_WITH_BUG_MS : DRAIN_MS;
  let left = Infinity;
  while (left > 0 && performance.now() - began < patience) {
    await wait(100);
    const [row] = await ask<{ left: number }>(
      url,
      'SELECT count(*)::int AS left FROM bildad.job_queue_entries',
    ).catch(() => []);
    left = row?.left ?? Infinity;
  }
  const ms = performance.now() - began;
  ledger.write({ what: 'drained', ms, left });
  return Math.round(ms);
}

async function createDatabase(server: PostgresServer, name: string): Promise<string> {
  await ask(server.url, `CREATE DATABASE ${name}`);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return url.href;
}

async function ask<T>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    return (await client.query(sql)).rows as T[];
  } finally {
    await client.end();
  }
}
