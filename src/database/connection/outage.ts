import { setTimeout as pause } from 'node:timers/promises';

/** While the database is unreachable, all statements share about one attempt a second. */
const PAUSE_MS = 1_000;

/** The time from a lost connection to the next good one. */
export class Outage {
  private readonly since = performance.now();
  /** The first attempt is made at once, because most often a single connection is lost. */
  private nextAt = -Infinity;
  private attempting: Promise<void> | undefined;

  constructor(
    /** Rejects if the database is still unreachable. */
    private readonly attempt: () => Promise<void>,
    private readonly closed: AbortSignal,
  ) {}

  get ms(): number {
    return performance.now() - this.since;
  }

  /** Shares the current attempt, or the next one. Rejects if the database is still unreachable after it. */
  waitForEnd(): Promise<void> {
    this.attempting ??= this.tryOnce().finally(() => {
      this.attempting = undefined;
    });
    return this.attempting;
  }

  private async tryOnce(): Promise<void> {
    const waitMs = this.nextAt - performance.now();
    if (waitMs > 0) await pause(waitMs, undefined, { signal: this.closed });
    try {
      await this.attempt();
    } catch (error) {
      this.postpone();
      throw error;
    }
  }

  /** An attempt has failed. The pause is random: nodes that lost the database together do not return at the same time. */
  postpone(): void {
    this.nextAt = performance.now() + PAUSE_MS * (1 + Math.random() / 2);
  }
}
