import type { ClaimedRun } from '../model/facts.js';
import type { Claim } from '../store/claim-rows.js';

/** A node holds at the most what it finishes within about this time: short, to be fair to other nodes. */
const HORIZON_MS = 50;
const MOST = 1_000;
/** A thousand jobs a second. Slower ones are worth a row that says they run. */
const DEFER_FROM = 50;

/**
 * Claims that wait for a free slot of this node. How many it may hold follows from how fast it ends
 * them: none for jobs that take seconds, hundreds for jobs that take microseconds, so that a claim's
 * round trip is shared by many jobs without a setting.
 */
export class ClaimsAhead {
  private waiting: Claim[] = [];
  private endedSince = 0;
  private measuredAt = performance.now();
  private size = 0;

  get length(): number {
    return this.waiting.length;
  }

  /** How many more to claim beyond the free slots; to be asked once per claim. */
  room(): number {
    const now = performance.now();
    const perMs = this.endedSince / Math.max(now - this.measuredAt, 1);
    this.endedSince = 0;
    this.measuredAt = now;
    this.size = Math.min(Math.round(perMs * HORIZON_MS), MOST);
    return Math.max(0, this.size - this.waiting.length);
  }

  /** Worth a claim: half of what may be held is gone. */
  get low(): boolean {
    return this.waiting.length <= this.size / 2;
  }

  /** Whether jobs here end so fast that their runs' rows are better written with their ends. */
  get defers(): boolean {
    return this.size >= DEFER_FROM;
  }

  put(claims: Claim[]): void {
    this.waiting.push(...claims);
  }

  next(): Claim | undefined {
    return this.waiting.shift();
  }

  /** A handler of this node has ended. */
  ended(): void {
    this.endedSince++;
  }

  has(runId: string): boolean {
    return this.waiting.some(({ claimed }) => claimed.jobRunId === runId);
  }

  /** Forgets a claim that is this node's no more. @returns whether it was held */
  drop(runId: string): boolean {
    const before = this.waiting.length;
    this.waiting = this.waiting.filter(
      ({ claimed }) => claimed.jobRunId !== runId,
    );
    return this.waiting.length < before;
  }

  held(): ClaimedRun[] {
    return this.waiting.map(({ claimed }) => claimed);
  }

  /** Gives all of them up. */
  clear(): ClaimedRun[] {
    const held = this.held();
    this.waiting = [];
    return held;
  }
}
