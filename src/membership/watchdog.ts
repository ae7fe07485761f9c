import { writeSync } from 'node:fs';
import { monotonicMs, type PulseMemory } from './memory-sample.js';

const LOOK_MS = 250;
/** Shorter blocks are lag. */
const BLOCKED_FROM_MS = 1_000;

/**
 * Watches the main thread's event loop from another thread. Time in which this thread did not get to look either,
 * because the whole process was frozen, does not count.
 */
export class Watchdog {
  private turnedAt: number;
  private lookedAt = monotonicMs();
  private stuckMs = 0;
  private readonly timer: NodeJS.Timeout;

  /** @param limitMs after which the process is killed; false for never */
  constructor(
    private readonly memory: PulseMemory,
    private readonly limitMs: number | false,
  ) {
    this.turnedAt = memory.turnedAt;
    this.timer = setInterval(() => this.look(), LOOK_MS);
    this.timer.unref();
  }

  /** Null while the loop turns. */
  get blockedMs(): number | null {
    const least = Math.min(BLOCKED_FROM_MS, this.memory.leaseMs / 5);
    return this.stuckMs >= least ? Math.round(this.stuckMs) : null;
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private look(): void {
    const now = monotonicMs();
    const passed = Math.min(now - this.lookedAt, 2 * LOOK_MS);
    this.lookedAt = now;
    const { turnedAt } = this.memory;
    this.stuckMs = turnedAt === this.turnedAt ? this.stuckMs + passed : 0;
    this.turnedAt = turnedAt;
    if (this.limitMs === false || this.stuckMs < this.limitMs) return;
    if (this.memory.debugged) return;
    try {
      // process.stderr is written by the main thread.
      writeSync(
        2,
        `nestjs-bildad: the event loop was blocked for ${Math.round(this.stuckMs)} ms (maxEventLoopBlock ${this.limitMs} ms): ` +
          `process ${process.pid} is killed, so that its jobs run elsewhere\n`,
      );
    } catch {
      // Nobody reads it.
    }
    process.kill(process.pid, 'SIGKILL');
  }
}
