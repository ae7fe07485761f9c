import type { EngineContext } from '../database/engine-context.js';
import type { Outcome } from '../job/outcome.js';
import type { LostRun } from '../lifecycle/run/run.sql.js';
import { HEARTBEATS_PER_LEASE } from './heartbeat-memory.js';
import { declareLost, livingNodes } from './node.sql.js';

/** A living node heartbeats within this many heartbeats, however the database's clock has moved meanwhile. */
const SILENT_HEARTBEATS = 2;

/**
 * Declares nodes lost. The database's clock says whether a node's lease is over, and that clock may have jumped. So
 * this node must also have seen the other's heartbeat unchanged for two heartbeats by its own monotonic clock: after a jump
 * every living node has beaten by then.
 */
export class LostNodeDetector {
  private seen = new Map<string, { heartbeats: string; since: number }>();

  constructor(private readonly engine: EngineContext) {}

  /** @returns how many nodes were declared lost */
  async detect(): Promise<number> {
    const { store, node, events } = this.engine;
    const living = await livingNodes(store.db, store.tables);
    const now = performance.now();
    const before = this.seen;
    this.seen = new Map(
      living.map(({ id, heartbeats }) => {
        const known = before.get(id);
        return [id, known?.heartbeats === heartbeats ? known : { heartbeats, since: now }];
      }),
    );
    const silence = (SILENT_HEARTBEATS * node.leaseMs) / HEARTBEATS_PER_LEASE;
    const silent = living.filter(
      ({ id, overdue }) => overdue && id !== node.id && now - this.seen.get(id)!.since >= silence,
    );
    if (silent.length === 0) return 0;
    const lost = await declareLost(store.db, store.tables, silent);
    for (const { id, charged } of lost) events.emit('node.lost', { node: id, charged });
    return lost.length;
  }

  /** After an outage: heartbeats that were seen before it prove nothing. */
  forget(): void {
    this.seen.clear();
  }
}

/**
 * How a run ends whose lease is over:
 * - its node was lost: crashed, which costs no retry. If the run's row was written only after the loss, it may not
 *   have begun, or may even have ended: expired.
 * - its node stopped by itself (shutdown, or without the database): interrupted.
 */
export function outcomeOfLostRun(
  { nodeEnd, late, crashes }: LostRun,
  maxCrashes: number,
): Extract<Outcome, { kind: 'expired' | 'crashed' | 'interrupted' }> {
  if (nodeEnd === 'fenced' || nodeEnd === 'shutdown') return { kind: 'interrupted' };
  if (nodeEnd === 'lost' && !late) return { kind: 'crashed', crashes, maxCrashes };
  return { kind: 'expired' };
}
