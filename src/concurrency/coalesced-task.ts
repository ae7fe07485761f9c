import { AsyncLocalStorage } from 'node:async_hooks';
import { runAfter } from './timers.js';

/** A run does not belong to the job or transaction that requested it. */
const atRoot = AsyncLocalStorage.snapshot();

/**
 * Runs one task, never twice at the same time. A request while it runs makes it run once more
 * afterwards, so no request is lost. Its timers do not keep the process alive.
 */
export class CoalescedTask {
  private running: Promise<void> | undefined;
  /** When the next run starts, by `performance.now()`. */
  private nextAt = Infinity;
  private cancelTimer: () => void = () => undefined;
  private stopped = false;

  constructor(
    private readonly task: () => Promise<void>,
    /** Receives the errors of the task. Must not throw. */
    private readonly onError: (error: unknown) => void,
  ) {}

  get isRunning(): boolean {
    return this.running !== undefined;
  }

  /**
   * Starts a run within `delayMs`. Of several requests the earliest counts. Requests in the same turn
   * of the event loop share one run. Does nothing after `stop()`.
   */
  request(delayMs = 0): void {
    const at = performance.now() + delayMs;
    if (this.stopped || at >= this.nextAt) return;
    this.nextAt = at;
    if (!this.running) this.schedule();
  }

  /** Resolves after the current run, or one that starts now. Never rejects. */
  join(): Promise<void> {
    if (!this.running) this.request();
    return this.idle();
  }

  /** Resolves when no task runs. A delayed run may still be scheduled. Never rejects. */
  async idle(): Promise<void> {
    await this.running;
  }

  /** Starts no further run. Resolves when the current run has ended. Never rejects. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.nextAt = Infinity;
    this.cancelTimer();
    await this.running;
  }

  private schedule(): void {
    this.cancelTimer();
    const delayMs = this.nextAt - performance.now();
    const start = () => {
      this.running = this.run();
    };
    if (delayMs <= 0) return atRoot(start);
    this.cancelTimer = atRoot(() => runAfter(delayMs, start, { keepsAlive: false }));
  }

  private async run(): Promise<void> {
    // Requests of the same turn of the event loop share this run.
    await Promise.resolve();
    do {
      this.nextAt = Infinity;
      try {
        await this.task();
      } catch (error) {
        this.onError(error);
      }
    } while (this.nextAt <= performance.now());
    // In the same step as the check: a request comes either before both, or after both.
    this.running = undefined;
    if (this.nextAt < Infinity) this.schedule();
  }
}
