import { runAfter } from './timers.js';

/** A task had to wait longer than its limit. */
export class SemaphoreTimeoutError extends Error {
  constructor(ms: number) {
    super(`no turn within ${ms} ms`);
  }
}

/** Runs a limited number of tasks at a time; the others wait in order. */
export class Semaphore {
  private readonly waiting: (() => void)[] = [];

  constructor(private free: number) {}

  /**
   * @param acquireMs how long to wait for a turn; for ever by default
   * @throws SemaphoreTimeoutError; what `task` throws
   */
  async run<T>(task: () => Promise<T>, acquireMs = Infinity): Promise<T> {
    if (this.free > 0) this.free--;
    else await this.waitForTurn(acquireMs);
    try {
      return await task();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.free++;
    }
  }

  private waitForTurn(acquireMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (acquireMs === Infinity) {
        this.waiting.push(resolve);
        return;
      }
      const cancelTimeout = runAfter(acquireMs, () => {
        this.waiting.splice(this.waiting.indexOf(next), 1);
        reject(new SemaphoreTimeoutError(acquireMs));
      });
      const next = () => {
        cancelTimeout();
        resolve();
      };
      this.waiting.push(next);
    });
  }
}
