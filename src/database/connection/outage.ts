import { setTimeout as pause } from 'node:timers/promises';

/** The database is asked about once a second while it is away, by all statements together. */
const PAUSE_MS = 1_000;

/** The time from a lost connection to the next good one. */
export class Outage {
  private readonly since = performance.now();
  /** The first attempt follows at once: most connections are lost alone. */
  private nextAt = -Infinity;
  private attempting: Promise<void> | undefined;

  constructor(
    /** Rejects if the database is still away. */
    private readonly attempt: () => Promise<void>,
    private readonly closed: AbortSignal,
  ) {}

  get ms(): number {
    return performance.now() - this.since;
  }

  /** Resolves when the database is back; rejects with what the attempt under way, or the next one, ends in. */
  over(): Promise<void> {
    this.attempting ??= this.again().finally(() => {
      this.attempting = undefined;
    });
    return this.attempting;
  }

  private async again(): Promise<void> {
    const wait = this.nextAt - performance.now();
    if (wait > 0) await pause(wait, undefined, { signal: this.closed });
    try {
      await this.attempt();
    } catch (error) {
      this.asked();
      throw error;
    }
  }

  /** An attempt has failed. Nodes that lost the database together do not come back together. */
  asked(): void {
    this.nextAt = performance.now() + PAUSE_MS * (1 + Math.random() / 2);
  }
}
