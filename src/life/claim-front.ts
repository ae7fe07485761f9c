import type { ClaimedEntry } from '../store/claim.store.js';

/**
 * Where this node's next claim begins to look. Entries that were claimed stay in the queue's index until
 * vacuum takes them away; a claim that begins behind the last one need not step over them. More urgent
 * entries are looked for from the head in any case. An entry of the same priority that came back to the
 * queue, or was committed late, lies before the front: whole looks, one for each pass, find it.
 */
export class ClaimFront {
  private at: ClaimedEntry | null = null;

  /** Something may have come back: the next look is a whole one. */
  reset(): void {
    this.at = null;
  }

  from(): ClaimedEntry | null {
    return this.at;
  }

  reached(last: ClaimedEntry | null): void {
    if (last && (!this.at || isBehind(last, this.at))) this.at = last;
  }
}

const isBehind = (one: ClaimedEntry, other: ClaimedEntry) =>
  one.priority > other.priority ||
  (one.priority === other.priority && BigInt(one.id) > BigInt(other.id));
