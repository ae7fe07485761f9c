import type { ClaimedEntry } from './claim.sql.js';

/** Where a claim looks: at the whole queue; at it unless that is dear just now; or behind the last claim. */
export type Look = 'whole' | 'affordable' | 'behind';

const DEAR_MS = 50;
/** Ten times what claiming an entry takes, so that a busy machine does not pass for a long way to the first. */
const CLAIM_MS = 0.5;
/** What dear looks take beyond their claims is a twentieth of the time at the most. */
const SPARED = 20;

/**
 * Where this node's next claim begins to look. Entries that were claimed stay in the queue's index until
 * vacuum takes them away; a claim that begins behind the last one need not step over them. More urgent
 * entries are looked for from the head in any case. An entry of the same priority that came back to the
 * queue, or was committed late, lies before the front: whole looks, one for each pass, find it.
 *
 * While a long transaction keeps vacuum from its work, whole looks become dear (775 ms with a million dead rows): then
 * they are made less often, unless somebody asked for the pass.
 */
export class ClaimFront {
  private at: ClaimedEntry | null = null;
  private affordableFrom = -Infinity;
  private cameBack = false;

  /** The entry to begin behind; null for the whole queue. */
  from(look: Look): ClaimedEntry | null {
    const affordable = performance.now() >= this.affordableFrom;
    if (look === 'whole' || (look === 'affordable' && (affordable || this.cameBack))) {
      this.at = null;
      this.cameBack = false;
    }
    return this.at;
  }

  /** Entries came back to the queue: the next pass looks for them, whatever a look that is under way takes, which may have missed them. */
  lookBack(): void {
    this.cameBack = true;
  }

  /** @param from what this claim began behind */
  reached(
    last: ClaimedEntry | null,
    from: ClaimedEntry | null,
    tookMs: number,
    claimed: number,
  ): void {
    const lookedMs = tookMs - claimed * CLAIM_MS;
    if (!from)
      this.affordableFrom = lookedMs > DEAR_MS ? performance.now() + SPARED * lookedMs : -Infinity;
    if (last && (!this.at || isBehind(last, this.at))) this.at = last;
  }
}

const isBehind = (one: ClaimedEntry, other: ClaimedEntry) =>
  one.priority > other.priority ||
  (one.priority === other.priority && BigInt(one.id) > BigInt(other.id));
