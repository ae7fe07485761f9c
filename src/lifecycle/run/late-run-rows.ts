import type { RunFacts } from '../../job/run-facts.js';
import type { NodeState } from '../../job/node-state.js';
import {
  isConflict,
  isDataError,
  isRefusal,
  isUniqueViolation,
} from '../../database/database-error.js';
import {
  findEntryOfLateRun,
  findLateEntriesOfLostNodes,
  releaseUnacknowledged,
  writeLateRows,
  writeLateRowsOfLostNodes,
} from './late-run-rows.sql.js';
import { findRuns } from './run.sql.js';
import { BLOCKED } from '../../concurrency/lock-retry.js';
import { createLockRetry } from '../../database/lock-retry.js';
import { WriteBatcher } from '../../concurrency/write-batcher.js';
import type { Quarantine, Refused } from '../claim/quarantine.js';
import type { Store } from '../../database/store.js';

const RUNS_PER_STATEMENT = 500;

/**
 * Runs whose rows are written late. A node that ends jobs by the thousand claims entries without writing their run rows:
 * the entry holds the values of the row. The row is written with the end of the run, or before that by the renewal of the
 * run leases, by a call that needs it (`ensureWritten`), or by a sweep when the node is lost.
 *
 * Only this class knows which runs of this node may have a late row. It is a hint: the SQL functions read the entry.
 */
export class LateRunRows {
  private readonly late = new WeakSet<RunFacts>();
  private readonly writes = new WriteBatcher<string, { blocked: boolean }>({
    maxItems: RUNS_PER_STATEMENT,
    bytesOf: () => 0,
    write: async (entryIds) => {
      const { db, tables } = this.store;
      const { blockedEntryIds } = await writeLateRows(db, tables, entryIds);
      const blocked = new Set(blockedEntryIds);
      return entryIds.map((id) => ({ blocked: blocked.has(id) }));
    },
    isItemFault: (error) => isDataError(error) || isConflict(error) || isUniqueViolation(error),
  });

  private readonly lockRetry;

  /** When the answer to a claim was last lost: this node may own entries that it does not know of. */
  private answerLostAt = -Infinity;

  constructor(
    private readonly store: Store,
    private readonly quarantine: Quarantine,
    private readonly node: NodeState,
  ) {
    this.lockRetry = createLockRetry(store.db);
  }

  /** These runs were claimed without their rows. */
  track(runs: readonly RunFacts[]): void {
    for (const run of runs) this.late.add(run);
  }

  /** Whether the row of this run is probably not written yet. */
  isLate(run: RunFacts): boolean {
    return this.late.has(run);
  }

  /** Writes the rows of runs that this node holds, without waiting for locks. @returns the runs whose rows are written */
  async writeHeld<Run extends RunFacts>(runs: Run[]): Promise<Run[]> {
    const late = runs.filter((run) => this.late.has(run));
    if (late.length === 0) return runs;
    await Promise.all(late.map((run) => this.write(run)));
    return runs.filter((run) => !this.late.has(run));
  }

  /**
   * Writes the rows of these runs, as far as the runs still belong to this node. Waits for locks.
   * @throws BildadDatabaseError when another transaction has an entry locked for longer than two query timeouts
   */
  async ensureWritten(runs: RunFacts[]): Promise<void> {
    await Promise.all(
      runs.map(async (run) => {
        if (!this.late.has(run)) return;
        await this.ensureWrittenOfEntry(run.jobQueueEntryId);
        this.late.delete(run);
      }),
    );
  }

  /** Writes the row of an entry's current run, if it is late. */
  async ensureWrittenOfEntry(jobQueueEntryId: string): Promise<void> {
    await this.lockRetry.run(`queue entry ${jobQueueEntryId}`, async () => {
      const { blocked } = await this.writes.add(jobQueueEntryId);
      return blocked ? BLOCKED : true;
    });
  }

  /** Writes the row of a run by its id. @returns whether its row was missing, and may exist now */
  async ensureWrittenOfRun(jobRunId: string): Promise<boolean> {
    const { db, tables } = this.store;
    const [run] = await findRuns(db, tables, [jobRunId]);
    if (run) return false;
    const entryId = await findEntryOfLateRun(db, tables, jobRunId);
    if (entryId !== undefined) await this.ensureWrittenOfEntry(entryId);
    return true;
  }

  /** Writes late rows of lost nodes, so that their runs can expire. @returns how many */
  async writeOfLostNodes(limit: number): Promise<number> {
    const { db, tables } = this.store;
    try {
      return (await writeLateRowsOfLostNodes(db, tables, limit)).written;
    } catch (error) {
      if (!isRefusal(error)) throw error;
      return this.writeOfLostNodesOneByOne(limit);
    }
  }

  recordLostClaim(): void {
    this.answerLostAt = performance.now();
  }

  /** Releases entries that this node claimed without receiving the answer, once the rows of its runs are written. @returns how many */
  async releaseUnacknowledged(held: RunFacts[]): Promise<number> {
    const { id, leaseMs } = this.node;
    if (performance.now() - this.answerLostAt > 2 * leaseMs) return 0;
    const { db, tables } = this.store;
    const entryIds = held.map(({ jobQueueEntryId }) => jobQueueEntryId);
    return releaseUnacknowledged(db, tables, id, leaseMs, entryIds);
  }

  private async write(run: RunFacts): Promise<void> {
    const { blocked } = await this.writes.add(run.jobQueueEntryId);
    if (!blocked) this.late.delete(run);
  }

  /** A row that cannot be written must not keep the others from expiring. */
  private async writeOfLostNodesOneByOne(limit: number): Promise<number> {
    const { db, tables } = this.store;
    let written = 0;
    const refused: Refused[] = [];
    for (const id of await findLateEntriesOfLostNodes(db, tables, limit))
      try {
        written += (await writeLateRows(db, tables, [id])).written;
      } catch (error) {
        if (!isRefusal(error)) throw error;
        refused.push({ id, error });
      }
    this.quarantine.emit(await this.quarantine.quarantineRefused(refused, written > 0));
    return written;
  }
}
