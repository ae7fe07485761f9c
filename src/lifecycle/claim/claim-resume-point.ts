import type { ClaimedEntry } from './claim.sql.js';

/** Where a claim begins: at the head of the queue, at the head if that is cheap now, or behind the last claim. */
export type ClaimFrom = 'head' | 'headIfCheap' | 'resumePoint';

const EXPENSIVE_MS = 50;
/** Ten times what claiming an entry takes, so that a busy machine does not look like a slow full scan. */
const CLAIM_MS = 0.5;
/** Expensive full scans take at most a twentieth of the time. */
const BACKOFF_FACTOR = 20;

/**
 * Where this node's next claim begins. Claimed entries stay in the queue's index until vacuum removes them; a claim
 * that begins behind the last one does not step over them. It still searches more urgent entries from the head.
 * Entries of the same priority that were released, or committed late, lie before the resume point: the full scan of
 * each pass finds them.
 *
 * While a long transaction blocks vacuum, full scans become expensive (775 ms with a million dead rows). Then they are
 * rarer, except in a pass that a caller requested.
 */
export class ClaimResumePoint {
  private at: ClaimedEntry | null = null;
  private cheapFrom = -Infinity;
  private headRequired = false;

  /** @returns the entry to begin behind; null for the head */
  startFrom(from: ClaimFrom): ClaimedEntry | null {
    const isCheap = performance.now() >= this.cheapFrom;
    if (from === 'head' || (from === 'headIfCheap' && (isCheap || this.headRequired))) {
      this.at = null;
      this.headRequired = false;
    }
    return this.at;
  }

  /** Makes the next pass begin at the head at any cost, because entries were released. A scan in flight may have missed them. */
  requireHead(): void {
    this.headRequired = true;
  }

  /** @param startedBehind what this claim began behind */
  record(
    last: ClaimedEntry | null,
    startedBehind: ClaimedEntry | null,
    tookMs: number,
    claimed: number,
  ): void {
    const scanMs = tookMs - claimed * CLAIM_MS;
    if (!startedBehind)
      this.cheapFrom =
        scanMs > EXPENSIVE_MS ? performance.now() + BACKOFF_FACTOR * scanMs : -Infinity;
    if (last && (!this.at || isBehind(last, this.at))) this.at = last;
  }
}

const isBehind = (one: ClaimedEntry, other: ClaimedEntry) =>
  one.priority > other.priority ||
  (one.priority === other.priority && BigInt(one.id) > BigInt(other.id));
