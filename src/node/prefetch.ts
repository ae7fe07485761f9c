import type { ClaimedRun } from '../job/run-facts.js';
import type { Claim } from '../lifecycle/claim/claim-rows.js';

/** A node holds at the most what it finishes within about this time: short, to be fair to other nodes. */
const HORIZON_MS = 50;
const MOST = 1_000;
/** Jobs that take longer than those before hold the slots: others may start them. */
const OLD_MS = 1_000;
/** A thousand jobs a second. Slower ones are worth a row that says they run. */
const LATE_ROWS_FROM = 50;

/**
 * Claims that wait for a free slot of this node. How many it may hold follows from how fast it ends
 * them: none for jobs that take seconds, hundreds for jobs that take microseconds, so that a claim's
 * round trip is shared by many jobs without a setting.
 */
export class ClaimsAhead {
  /** The oldest first. */
  private waiting: { claim: Claim; since: number }[] = [];
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

  /** Whether jobs end so fast here that their run rows are better written late. */
  get isFast(): boolean {
    return this.size >= LATE_ROWS_FROM;
  }

  put(claims: Claim[]): void {
    const since = performance.now();
    for (const claim of claims) this.waiting.push({ claim, since });
  }

  next(): Claim | undefined {
    return this.waiting.shift()?.claim;
  }

  /** A handler of this node has ended. */
  ended(): void {
    this.endedSince++;
  }

  has(runId: string): boolean {
    return this.waiting.some(({ claim }) => claim.claimed.jobRunId === runId);
  }

  /** Forgets a claim that is this node's no more. @returns whether it was held */
  drop(runId: string): boolean {
    const before = this.waiting.length;
    this.waiting = this.waiting.filter(({ claim }) => claim.claimed.jobRunId !== runId);
    return this.waiting.length < before;
  }

  held(): ClaimedRun[] {
    return this.waiting.map(({ claim }) => claim.claimed);
  }

  /** Gives up those that have waited for long. */
  takeOld(): ClaimedRun[] {
    const before = performance.now() - OLD_MS;
    const first = this.waiting.findIndex(({ since }) => since > before);
    const old = this.waiting.splice(0, first < 0 ? Infinity : first);
    return old.map(({ claim }) => claim.claimed);
  }

  /** Gives all of them up. */
  clear(): ClaimedRun[] {
    const held = this.held();
    this.waiting = [];
    return held;
  }
}
