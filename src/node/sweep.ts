import type { LateRunRows } from '../lifecycle/run/late-run-rows.js';
import type { Quarantine } from '../lifecycle/claim/quarantine.js';
import type { Store } from '../database/store.js';
import type { NodeState } from '../job/node-state.js';
import { reopenOrphans } from '../lifecycle/finish/finish.sql.js';
import { takeSweep } from './guard.sql.js';
import { pruneKeys } from '../lifecycle/enqueue/unique-keys.sql.js';
import { pruneNodes } from '../membership/node.sql.js';
import { pruneNotes, pruneOrphanedNotes } from '../features/run-log/run-log.sql.js';

/** Sweeps from one look for what a hand in the database left behind to the next: ten minutes with the default lease. */
const ORPHANS_EVERY = 40;
const KEYS_AT_ONCE = 1_000;
/** The guard is not to be held for long: what is left is for the next pass. */
const KEY_LOOKS = 20;
const NOTES_AT_ONCE = 1_000;
const NOTE_LOOKS = 20;

/**
 * A look at every entry, for the two things no index tells: late run rows of lost nodes, and entries that a hand in the database left behind. Once a lease, by one node of all: 0.4 s with a
 * million entries (docs/plans.md). Right after a node was lost as well, so that its jobs need not wait for the next one.
 */
export class Sweep {
  private lastAt = performance.now();
  private sweeps = 0;
  /** The last look at late run rows found more than a pass takes. */
  private more = false;
  /** The last looks at keys and at notes found as much as a pass takes. */
  private moreKeys = false;
  private moreNotes = false;
  /** Notes of runs up to here were looked at. */
  private notesUpTo = '0';

  constructor(
    private readonly store: Store,
    private readonly lateRows: LateRunRows,
    private readonly quarantine: Quarantine,
    private readonly node: NodeState,
    private readonly engineName: string,
  ) {}

  /** @param atOnce although none is due: a node was lost */
  async run(atOnce: boolean): Promise<void> {
    const { leaseMs, batchSize } = this.node;
    if (atOnce || this.more) await this.writeLost(batchSize);
    if (!(await this.takeSweep(leaseMs))) return this.goOn();
    const { db, tables } = this.store;
    await this.writeLost(batchSize);
    await pruneNodes(db, tables);
    await this.pruneKeys();
    await this.pruneNotes();
    await this.pruneOrphanedNotes();
    if (this.sweeps++ % ORPHANS_EVERY !== 0) return;
    await this.quarantine.sweep();
    await reopenOrphans(db, tables, batchSize);
  }

  private async takeSweep(leaseMs: number): Promise<boolean> {
    if (performance.now() < this.lastAt + leaseMs) return false;
    this.lastAt = performance.now();
    const { db, tables } = this.store;
    return takeSweep(db, tables, this.engineName, leaseMs);
  }

  private async goOn(): Promise<void> {
    if (this.moreKeys) await this.pruneKeys();
    if (this.moreNotes) await this.pruneNotes();
  }

  private async pruneKeys(): Promise<void> {
    const { db, tables } = this.store;
    this.moreKeys = await isFull(KEY_LOOKS, KEYS_AT_ONCE, () =>
      pruneKeys(db, tables, KEYS_AT_ONCE),
    );
  }

  private async pruneNotes(): Promise<void> {
    const { db, tables } = this.store;
    this.moreNotes = await isFull(NOTE_LOOKS, NOTES_AT_ONCE, () =>
      pruneNotes(db, tables, NOTES_AT_ONCE),
    );
  }

  /** A piece of what is there for runs that are gone. */
  private async pruneOrphanedNotes(): Promise<void> {
    const { db, tables } = this.store;
    this.notesUpTo = (await pruneOrphanedNotes(db, tables, this.notesUpTo, NOTES_AT_ONCE)) ?? '0';
  }

  private async writeLost(batchSize: number): Promise<void> {
    this.more = (await this.lateRows.writeOfLostNodes(batchSize)) === batchSize;
  }
}

/** @returns whether each of so many looks found as much as it takes */
async function isFull(looks: number, limit: number, look: () => Promise<number>): Promise<boolean> {
  for (let n = 0; n < looks; n++) if ((await look()) < limit) return false;
  return true;
}
