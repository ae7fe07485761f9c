import { waitAtMost } from './timers.js';

/** A probe may take at most this fraction of the time. */
const INTERVAL_PER_DURATION = 50;

/** An expensive query: all callers share one, and it runs rarely when it takes long. */
export class ThrottledProbe<T> {
  private nextAt = -Infinity;
  private running: Promise<void> | undefined;
  private found: T | undefined;
  private forgotten = false;

  constructor(
    private readonly find: () => Promise<T>,
    /** Maximum age of a result. */
    private readonly everyMs: number,
  ) {}

  /**
   * The latest result; undefined when the query failed, or takes longer than `maxWaitMs`. Never
   * rejects.
   */
  async latest(maxWaitMs: number): Promise<T | undefined> {
    if (!this.running && performance.now() >= this.nextAt) this.running = this.probe();
    if (this.running) await waitAtMost(maxWaitMs, this.running);
    return this.found;
  }

  /** Drops the result and the duration of a query that is running: the next caller starts one. */
  forget(): void {
    this.found = undefined;
    this.nextAt = -Infinity;
    this.forgotten = true;
  }

  private async probe(): Promise<void> {
    const startedAt = performance.now();
    this.forgotten = false;
    try {
      this.found = await this.find();
    } catch {
      // An outage is reported elsewhere.
      this.found = undefined;
    }
    const tookMs = performance.now() - startedAt;
    if (!this.forgotten)
      this.nextAt = performance.now() + Math.max(this.everyMs, tookMs * INTERVAL_PER_DURATION);
    this.running = undefined;
  }
}
