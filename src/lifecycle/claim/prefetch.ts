import type { ClaimedRun } from '../../job/run-facts.js';
import type { Claim } from './claim.sql.js';

/** A node holds at most what it finishes within about this time: short, to be fair to other nodes. */
const HORIZON_MS = 50;
const MAX_SIZE = 1_000;
/** Slower jobs hold the slots now: other nodes may start claims that waited this long. */
const MAX_AGE_MS = 1_000;
/** A thousand jobs a second. For slower jobs the run row is written with the claim. */
const LATE_ROWS_FROM = 50;

/**
 * Claims that wait on this node for a free slot. Their number follows from how fast the node ends jobs: none for jobs
 * that take seconds, hundreds for jobs that take microseconds. So many jobs share the round trip of one claim.
 */
export class Prefetch {
  /** The oldest first. */
  private waiting: { claim: Claim; since: number }[] = [];
  private endedCount = 0;
  private measuredAt = performance.now();
  private size = 0;

  get length(): number {
    return this.waiting.length;
  }

  /** Call it once per claim. @returns how many more to claim beyond the free slots */
  measureRoom(): number {
    const now = performance.now();
    const perMs = this.endedCount / Math.max(now - this.measuredAt, 1);
    this.endedCount = 0;
    this.measuredAt = now;
    this.size = Math.min(Math.round(perMs * HORIZON_MS), MAX_SIZE);
    return Math.max(0, this.size - this.waiting.length);
  }

  /** Half of it is used up, so that the next claim is worth its statement. */
  get isLow(): boolean {
    return this.waiting.length <= this.size / 2;
  }

  /** Jobs end so fast here that the rows of their runs are better written late. */
  get prefersLateRows(): boolean {
    return this.size >= LATE_ROWS_FROM;
  }

  add(claims: Claim[]): void {
    const since = performance.now();
    for (const claim of claims) this.waiting.push({ claim, since });
  }

  takeNext(): Claim | undefined {
    return this.waiting.shift()?.claim;
  }

  /** Call it for each handler that has ended on this node. */
  countEnd(): void {
    this.endedCount++;
  }

  has(runId: string): boolean {
    return this.waiting.some(({ claim }) => claim.claimed.jobRunId === runId);
  }

  /** Removes a claim that is this node's no more. */
  drop(runId: string): void {
    this.waiting = this.waiting.filter(({ claim }) => claim.claimed.jobRunId !== runId);
  }

  held(): ClaimedRun[] {
    return this.waiting.map(({ claim }) => claim.claimed);
  }

  /** Removes the claims that have waited too long. */
  takeOld(): ClaimedRun[] {
    const before = performance.now() - MAX_AGE_MS;
    const first = this.waiting.findIndex(({ since }) => since > before);
    const old = this.waiting.splice(0, first < 0 ? Infinity : first);
    return old.map(({ claim }) => claim.claimed);
  }

  clear(): ClaimedRun[] {
    const held = this.held();
    this.waiting = [];
    return held;
  }
}
