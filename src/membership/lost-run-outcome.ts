import type { Outcome } from '../job/outcome.js';
import type { LostRun } from '../lifecycle/run/run.sql.js';

/**
 * How a run ends whose lease is over. Of a node that was lost: as a crash, which costs no retry, unless its row
 * was written only then: whether such a run had begun, or had even ended, nobody knows, and it expires. Of a
 * node that stopped by itself, orderly or for want of the database: as one that a shutdown interrupts.
 */
export function endOfLost(
  { nodeEnd, late, crashes }: LostRun,
  maxCrashes: number,
): Extract<Outcome, { kind: 'expired' | 'crashed' | 'interrupted' }> {
  if (nodeEnd === 'fenced' || nodeEnd === 'shutdown') return { kind: 'interrupted' };
  if (nodeEnd === 'lost' && !late) return { kind: 'crashed', crashes, maxCrashes };
  return { kind: 'expired' };
}
