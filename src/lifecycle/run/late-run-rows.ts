import type { RunFacts } from '../../job/run-facts.js';
import type { NodeState } from '../../job/node-state.js';
import { isConflict, isDataError, isRefusal, isTaken } from '../../database/database-error.js';
import {
  endDeferred,
  lostEntries,
  releaseUnheard,
  writeDeferredRun,
  writeDeferredRuns,
  writeLostRuns,
  type DeferredEnd,
} from './late-run-rows.sql.js';
import { WriteBatcher } from '../../concurrency/write-batcher.js';
import type { Quarantine, Refused } from '../claim/quarantine.js';
import type { Store } from '../../database/store.js';

const RUNS_PER_STATEMENT = 500;

/**
 * Runs whose rows are written late. A node that ends jobs by the thousand claims entries without writing
 * their runs; what a row would say stands in the entry. It is written with the end of a run that succeeds;
 * or before, by the node's heartbeat, by whoever wants to do something to that run, or when its node is gone.
 */
export class DeferredRuns {
  private readonly ends = new WriteBatcher<DeferredEnd, boolean>({
    maxItems: RUNS_PER_STATEMENT,
    bytesOf: ({ output }) => output?.length ?? 0,
    write: (ends) => this.endAll(ends),
    isItemFault: mayBeOnes,
  });
  private readonly rows = new WriteBatcher<string, void>({
    maxItems: RUNS_PER_STATEMENT,
    bytesOf: () => 0,
    write: async (entryIds) => {
      const { db, tables } = this.store;
      await writeDeferredRuns(db, tables, entryIds);
      return entryIds.map(() => undefined);
    },
    isItemFault: mayBeOnes,
  });

  /** When the answer to a claim was lost last: what it claimed may be this node's without its knowing. */
  private unheardAt = -Infinity;

  constructor(
    private readonly store: Store,
    private readonly quarantine: Quarantine,
    private readonly node: NodeState,
  ) {}

  /** The answer to a claim was lost. */
  unheard(): void {
    this.unheardAt = performance.now();
  }

  /** Gives back what this node claimed without hearing of it, once what is held is written. @returns how many */
  async releaseUnheard(held: RunFacts[]): Promise<number> {
    const { id, leaseMs } = this.node;
    if (performance.now() - this.unheardAt > 2 * leaseMs) return 0;
    const { db, tables } = this.store;
    const entryIds = held.map(({ jobQueueEntryId }) => jobQueueEntryId);
    return releaseUnheard(db, tables, id, leaseMs, entryIds);
  }

  /** Ends a run that succeeded. @returns false when it is not to be ended this way: its row is there, or it is not this run's turn */
  end({ jobRunId, jobQueueEntryId }: RunFacts, output: string | null): Promise<boolean> {
    return this.ends.add({ jobRunId, jobQueueEntryId, output });
  }

  private async endAll(ends: DeferredEnd[]): Promise<boolean[]> {
    try {
      return await endDeferred(this.store.db, this.store.tables, ends);
    } catch (error) {
      // Alone, and with a row to write to, it can be told what is wrong with it.
      if (ends.length === 1 && (isDataError(error) || isTaken(error))) return [false];
      throw error;
    }
  }

  /** After it their rows are there, as far as the runs are still theirs. */
  async write(runs: RunFacts[]): Promise<void> {
    await Promise.all(
      runs.map(async (run) => {
        await this.rows.add(run.jobQueueEntryId);
        run.deferred = false;
      }),
    );
  }

  /** The same for whoever knows of an entry, not whether its run is deferred. */
  async writeOf(jobQueueEntryId: string): Promise<void> {
    await this.rows.add(jobQueueEntryId);
  }

  /** For who knows of a run by its number alone. */
  async writeRun(jobRunId: string): Promise<void> {
    await writeDeferredRun(this.store.db, this.store.tables, jobRunId);
  }

  /** Of nodes that are gone: their runs can expire then. @returns how many */
  async writeLost(limit: number): Promise<number> {
    const { db, tables } = this.store;
    try {
      return await writeLostRuns(db, tables, limit);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      return this.writeLostSingly(limit);
    }
  }

  /** One whose row cannot be written must not keep the others from expiring. */
  private async writeLostSingly(limit: number): Promise<number> {
    const { db, tables } = this.store;
    let written = 0;
    const refused: Refused[] = [];
    for (const id of await lostEntries(db, tables, limit))
      try {
        written += await writeDeferredRuns(db, tables, [id]);
      } catch (error) {
        if (!isRefusal(error)) throw error;
        refused.push({ id, error });
      }
    this.quarantine.tell(await this.quarantine.judge(refused, written > 0));
    return written;
  }
}

function mayBeOnes(error: unknown): boolean {
  return isDataError(error) || isConflict(error) || isTaken(error);
}
