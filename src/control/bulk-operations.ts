import type { Store } from '../database/store.js';
import type { WakeUps } from '../notifications/wake-ups.js';
import { BildadError } from '../job/errors.js';
import { rescheduleEntries, type DueTime } from './change-entry.sql.js';
import { deleteWaiting } from '../lifecycle/enqueue/enqueue.sql.js';
import { DuplicateJobError } from '../job/errors.js';
import type { Enqueue } from '../lifecycle/enqueue/enqueue.js';
import {
  failedRuns,
  matchingEntries,
  newestRunId,
  type EntryFilter,
  type RunFilter,
} from './job-filter.sql.js';
import type { RunControl } from './run-control.js';

const ENTRIES_AT_ONCE = 1_000;
/** Fewer, because their contexts are in memory. */
const RUNS_AT_ONCE = 200;

/** Operations on all jobs that match a filter, in batches; each batch is a transaction of its own. */
export class BulkOperations {
  constructor(
    private readonly store: Store,
    private readonly runControl: RunControl,
    private readonly wakeUps: WakeUps,
    private readonly enqueue: Enqueue,
  ) {}

  /** @returns how many waiting jobs were deleted, and how many running ones were requested to stop */
  async cancel(filter: EntryFilter): Promise<{ removed: number; stopped: number }> {
    const { db, tables } = this.store;
    const counts = { removed: 0, stopped: 0 };
    await this.eachBatch(filter, async (ids) => {
      const removed = new Set(await deleteWaiting(db, tables, ids));
      counts.removed += removed.size;
      const running = ids.filter((id) => !removed.has(id));
      // In parallel, because each handler that does not stop takes the grace period.
      const stopping = await Promise.allSettled(
        running.map((id) => this.runControl.cancelEntry(id)),
      );
      for (const stop of stopping)
        if (stop.status === 'fulfilled') counts.stopped++;
        else if (!(stop.reason instanceof BildadError)) throw stop.reason;
    });
    return counts;
  }

  /** @returns how many jobs were rescheduled */
  async reschedule(filter: EntryFilter, due: DueTime): Promise<number> {
    const { db, tables } = this.store;
    let rescheduled = 0;
    await this.eachBatch({ ...filter, status: 'AVAILABLE' }, async (ids) => {
      rescheduled += await rescheduleEntries(db, tables, ids, due);
    });
    if (rescheduled > 0) this.wakeUps.wake();
    return rescheduled;
  }

  /**
   * Retries each run once, even if other callers retry it at the same time.
   * @returns how many were enqueued, and how many were refused: their context or template is not valid now
   */
  async retry(filter: RunFilter): Promise<{ retried: number; refused: number }> {
    const { db, tables } = this.store;
    const counts = { retried: 0, refused: 0 };
    const lastId = await newestRunId(db, tables);
    let after = '0';
    for (;;) {
      const runs = await failedRuns(db, tables, filter, after, lastId, RUNS_AT_ONCE);
      const retries = runs.map((run) => this.enqueue.retryRun(run, undefined, {}, true));
      for (const retry of await Promise.allSettled(retries))
        if (retry.status === 'fulfilled') counts.retried++;
        // Another call retried the run since.
        else if (retry.reason instanceof DuplicateJobError) continue;
        else if (retry.reason instanceof BildadError) counts.refused++;
        else throw retry.reason;
      if (runs.length < RUNS_AT_ONCE) return counts;
      after = runs.at(-1)!.id;
    }
  }

  private async eachBatch(
    filter: EntryFilter,
    work: (ids: string[]) => Promise<void>,
  ): Promise<void> {
    const { db, tables } = this.store;
    let after = '0';
    for (;;) {
      const ids = await matchingEntries(db, tables, filter, after, ENTRIES_AT_ONCE);
      if (ids.length > 0) await work(ids);
      if (ids.length < ENTRIES_AT_ONCE) return;
      after = ids.at(-1)!;
    }
  }
}
