import type { Duration } from '../../job/duration.js';
import type { BildadRole } from '../../options/module-options.js';
import { duration, group, withDefault } from '../../options/reader.js';
import { nameOf } from '../../job/storable-output.js';
import { waitAtMost } from '../../concurrency/timers.js';
import { answer } from '../../database/ping.sql.js';
import { databaseCode } from '../../database/database-error.js';
import { queueHead, type QueueHead } from '../../features/telemetry/queue-depth.sql.js';
import { unrunnableJobs, type UnrunnableJobs } from '../../node/unrunnable-jobs.sql.js';
import { UNRUNNABLE_AFTER_MS } from '../../node/unrunnable-jobs.js';
import { Looks } from './throttled-probe.js';
import type { BildadRuntime } from '../module/runtime.js';

/** What an engine knows of itself. */
export interface BildadLiveness {
  /** Of the module's options. */
  name: string;
  role: BildadRole;
  /** The node's id, which `listNodes` and the rows of its runs have. */
  node: string;
  /** It has begun to stop, and claims nothing more. */
  closing: boolean;
  /** It could not tell the database that it is alive, and claims nothing until it can. */
  fenced: boolean;
  /** The tables were upgraded beyond what its package can work with: it claims nothing. */
  outdated: boolean;
  /** Milliseconds since the database last renewed what it holds; null: it did not yet, or the node is a producer. */
  heartbeatAgeMs: number | null;
  /** How late the event loop was at its last turn, in milliseconds. */
  lagMs: number;
  /** Runs that hold one of its slots. */
  running: number;
  concurrency: number;
  /** Ends of runs that wait to be recorded. */
  backlog: number;
}

export interface BildadHealth extends BildadLiveness {
  database:
    | { reachable: true; tookMs: number }
    /** `error`: the class of the error; `timeout` where there was no answer in time. */
    | { reachable: false; error: string; code?: string };
  /**
   * The job that would be claimed next, of those that a living node can run, as of the last look; null: nothing is due, or
   * nobody knows. Looks are a fiftieth of the time at the most, so it is as old as fifty of them take: long where many
   * jobs are due that no node can run, else milliseconds.
   */
  head: QueueHead | null;
  /** Whether `head` is known: not where a look failed, or where the first one takes longer than `timeout`. */
  headKnown: boolean;
  /** What is due for a minute or more and no living node can run, as of the last ten seconds or more; empty where nobody knows. */
  unrunnable: UnrunnableJobs[];
}

export function livenessOf({ node, settings, processes, runs }: BildadRuntime): BildadLiveness {
  const { closing, fenced, outdated, lagMs, renewedAt } = node;
  const { name, role, concurrency } = settings;
  return {
    name,
    role,
    node: node.id,
    closing,
    fenced,
    outdated,
    heartbeatAgeMs: renewedAt === undefined ? null : performance.now() - renewedAt,
    lagMs,
    running: processes.size,
    concurrency,
    backlog: runs.backlog,
  };
}

type Database = BildadHealth['database'];

/** Of probes that ask at the same time one does. */
const underWay = new WeakMap<BildadRuntime, Promise<Database>>();

/** What may count among all entries: no answer of the database waits for it. */
interface Dear {
  head: Looks<QueueHead | null>;
  unrunnable: Looks<UnrunnableJobs[]>;
}
const dear = new WeakMap<BildadRuntime, Dear>();
const UNRUNNABLE_EVERY_MS = 10_000;

const readOptions = group({ timeout: withDefault(duration({ min: 1 }), '2s') });

/** @throws BildadConfigError */
export async function healthOf(
  bildad: BildadRuntime,
  options: { timeout?: Duration },
): Promise<BildadHealth> {
  const { timeout: timeoutMs } = readOptions(options, '', 'health');
  const until = performance.now() + timeoutMs;
  let asking = underWay.get(bildad);
  if (!asking) {
    asking = ask(bildad).finally(() => underWay.delete(bildad));
    underWay.set(bildad, asking);
  }
  let database: Database = { reachable: false, error: 'timeout' };
  await waitAtMost(
    timeoutMs,
    asking.then((answer) => {
      database = answer;
    }),
  );
  const { head, unrunnable } = await queueOf(bildad, database, until - performance.now());
  return {
    ...livenessOf(bildad),
    database,
    head: head ?? null,
    headKnown: head !== undefined,
    unrunnable: unrunnable ?? [],
  };
}

async function queueOf(bildad: BildadRuntime, { reachable }: Database, patienceMs: number) {
  const looks = dearOf(bildad);
  if (!reachable) {
    // What failed for that took long, and would not be looked for again for fifty times as long.
    looks.head.forget();
    looks.unrunnable.forget();
    return {};
  }
  const [head, unrunnable] = await Promise.all([
    looks.head.latest(patienceMs),
    looks.unrunnable.latest(patienceMs),
  ]);
  return { head, unrunnable };
}

function dearOf(bildad: BildadRuntime): Dear {
  let looks = dear.get(bildad);
  if (!looks) {
    const { db, tables } = bildad.store;
    looks = {
      head: new Looks(() => queueHead(db, tables), 0),
      unrunnable: new Looks(
        () => unrunnableJobs(db, tables, UNRUNNABLE_AFTER_MS),
        UNRUNNABLE_EVERY_MS,
      ),
    };
    dear.set(bildad, looks);
  }
  return looks;
}

async function ask({ store: { db, tables } }: BildadRuntime): Promise<Database> {
  const began = performance.now();
  try {
    await answer(db, tables);
    return { reachable: true, tookMs: performance.now() - began };
  } catch (error) {
    const code = databaseCode(error);
    return { reachable: false, error: nameOf(error), ...(code && { code }) };
  }
}
