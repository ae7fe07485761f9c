import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import { declareLost, livingNodes } from './node.sql.js';
import { BEATS_PER_LEASE } from './heartbeats-per-lease.js';

/** A living node beats within this many beats, whatever has become of the database's clock meanwhile. */
const SILENT_BEATS = 2;

/**
 * Tells which nodes are lost. That a lease is over says the database's clock, which may have jumped; so the judge
 * must itself have seen the node's beat unchanged for the time of two beats, by its own monotonic clock. After a
 * jump every node has beaten by then, and nobody's jobs are taken away.
 */
export class NodeJudge {
  private seen = new Map<string, { beat: string; since: number }>();

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
  ) {}

  /** @returns how many nodes were declared lost */
  async judge(): Promise<number> {
    const { db, tables } = this.store;
    const living = await livingNodes(db, tables);
    const now = performance.now();
    const before = this.seen;
    this.seen = new Map(
      living.map(({ id, beat }) => {
        const known = before.get(id);
        return [id, known?.beat === beat ? known : { beat, since: now }];
      }),
    );
    const silence = (SILENT_BEATS * this.node.leaseMs) / BEATS_PER_LEASE;
    const dead = living.filter(
      ({ id, overdue }) =>
        overdue && id !== this.node.id && now - this.seen.get(id)!.since >= silence,
    );
    if (dead.length === 0) return 0;
    const lost = await declareLost(db, tables, dead);
    for (const { id, charged } of lost) this.events.emit('node.lost', { node: id, charged });
    return lost.length;
  }

  /** What was seen before the database was away says nothing. */
  forget(): void {
    this.seen.clear();
  }
}
