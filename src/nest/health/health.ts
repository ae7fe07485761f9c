import type { Duration } from '../../job/duration.js';
import type { BildadRole } from '../../options/module-options.js';
import { duration, group, withDefault } from '../../options/reader.js';
import { nameOf } from '../../job/storable-output.js';
import { waitAtMost } from '../../concurrency/timers.js';
import { pingDatabase } from '../../database/job-config.sql.js';
import { databaseCode } from '../../database/database-error.js';
import { queueHead, type QueueHead } from '../../features/telemetry/queue-depth.sql.js';
import {
  UNRUNNABLE_AFTER_MS,
  unrunnableJobs,
  type UnrunnableJobs,
} from '../../node/unrunnable-jobs.sql.js';
import { ThrottledProbe } from '../../concurrency/throttled-probe.js';
import type { EngineContext } from '../../database/engine-context.js';
import type { ProcessRegistry } from '../../lifecycle/run/process-registry.js';
import type { RunJobs } from '../../lifecycle/run/run-jobs.js';

const UNRUNNABLE_EVERY_MS = 10_000;

/** The state of one process. */
export interface BildadLiveness {
  /** Name of the engine. */
  name: string;
  role: BildadRole;
  /** The node's id, as in `listNodes` and in its runs. */
  node: string;
  /** It is shutting down and claims nothing. */
  closing: boolean;
  /** Its heartbeats do not reach the database; it claims nothing until they do. */
  fenced: boolean;
  /** The tables were upgraded to a version that this package cannot use: it claims nothing. */
  outdated: boolean;
  /** Milliseconds since its leases were renewed; null: not yet, or the node is a producer. */
  heartbeatAgeMs: number | null;
  /** Delay of the event loop at the last check, in milliseconds. */
  lagMs: number;
  /** Runs that use one of its slots. */
  running: number;
  concurrency: number;
  /** Ended runs that wait to be recorded. */
  backlog: number;
}

export interface BildadHealth extends BildadLiveness {
  database:
    | { reachable: true; tookMs: number }
    /** `error`: class of the error; `timeout` when there was no answer in time. */
    | { reachable: false; error: string; code?: string };
  /**
   * The job that would be claimed next, of those that a live node can run; null: none is due, or it
   * is unknown. The query takes at most a fiftieth of the time, so the answer is up to fifty times
   * as old as it takes: milliseconds, or longer when many due jobs cannot run on any node.
   */
  head: QueueHead | null;
  /**
   * Whether `head` is known: false when the query failed, or when the first one takes longer than
   * `timeout`.
   */
  headKnown: boolean;
  /**
   * Jobs that are due for a minute or more and that no live node can run, at least ten seconds old;
   * empty when unknown.
   */
  unrunnable: UnrunnableJobs[];
}

type Database = BildadHealth['database'];

const readOptions = group({ timeout: withDefault(duration({ min: 1 }), '2s') });

/** What an engine reports to operators and probes. Concurrent calls share one statement. */
export class EngineHealth {
  private pinging: Promise<Database> | undefined;
  private readonly head: ThrottledProbe<QueueHead | null>;
  private readonly unrunnable: ThrottledProbe<UnrunnableJobs[]>;

  constructor(
    private readonly engine: EngineContext,
    private readonly processes: ProcessRegistry,
    private readonly runs: RunJobs,
  ) {
    const { db, tables } = engine.store;
    this.head = new ThrottledProbe(() => queueHead(db, tables), 0);
    this.unrunnable = new ThrottledProbe(
      () => unrunnableJobs(db, tables, UNRUNNABLE_AFTER_MS),
      UNRUNNABLE_EVERY_MS,
    );
  }

  liveness(): BildadLiveness {
    const { node, settings } = this.engine;
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
      running: this.processes.size,
      concurrency,
      backlog: this.runs.backlog,
    };
  }

  /** @throws BildadConfigError */
  async read(options: { timeout?: Duration }): Promise<BildadHealth> {
    const { timeout: timeoutMs } = readOptions(options, '', 'health');
    const until = performance.now() + timeoutMs;
    this.pinging ??= this.ping().finally(() => (this.pinging = undefined));
    let database: Database = { reachable: false, error: 'timeout' };
    await waitAtMost(
      timeoutMs,
      this.pinging.then((result) => {
        database = result;
      }),
    );
    const { head, unrunnable } = await this.readQueue(database, until - performance.now());
    return {
      ...this.liveness(),
      database,
      head: head ?? null,
      headKnown: head !== undefined,
      unrunnable: unrunnable ?? [],
    };
  }

  private async readQueue({ reachable }: Database, maxWaitMs: number) {
    if (!reachable) {
      // A query that failed in an outage took long and would not be repeated for fifty times as
      // long.
      this.head.forget();
      this.unrunnable.forget();
      return {};
    }
    const [head, unrunnable] = await Promise.all([
      this.head.latest(maxWaitMs),
      this.unrunnable.latest(maxWaitMs),
    ]);
    return { head, unrunnable };
  }

  private async ping(): Promise<Database> {
    const { db, tables } = this.engine.store;
    const startedAt = performance.now();
    try {
      await pingDatabase(db, tables);
      return { reachable: true, tookMs: performance.now() - startedAt };
    } catch (error) {
      const code = databaseCode(error);
      return { reachable: false, error: nameOf(error), ...(code && { code }) };
    }
  }
}
