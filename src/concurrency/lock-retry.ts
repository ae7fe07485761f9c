import { setTimeout as pause } from 'node:timers/promises';
import { Semaphore, SemaphoreTimeoutError } from './semaphore.js';

/** The result of an attempt whose row is locked. */
export const BLOCKED = Symbol('blocked');

/** First attempts at a time. They wait for locks, and must leave connections for other work. */
const FIRST_ATTEMPTS = 2;
/** Repeated attempts at a time. */
const REPEATED_ATTEMPTS = 1;
/** Attempts that wait, per instance. Further ones are rejected at once. */
const MAX_WAITING = 10_000;
const MAX_PAUSE_MS = 50;

export interface LockRetryOptions {
  /** Whether an error means that a row is locked and nothing was done. */
  isLocked: (error: unknown) => boolean;
  /** How long one attempt may wait for a lock. */
  lockWaitMs: () => number;
  /** How long a row may be locked before its attempts end with `timeoutError`. */
  patienceMs: () => number;
  /** `cause` is the error of the last attempt, if it threw one. */
  timeoutError: (what: string, patienceMs: number, cause: unknown) => Error;
}

/**
 * Repeats statements that find a row locked, and holds no connection between two attempts. First
 * attempts never wait for repeated ones, so an attempt on a free row succeeds at once.
 */
export class LockRetry {
  private readonly first = new Semaphore(FIRST_ATTEMPTS);
  private readonly repeated = new Semaphore(REPEATED_ATTEMPTS);
  /** Per key: a queue of attempts, of which one runs at a time. */
  private readonly byKey = new Map<string, { turn: Semaphore; users: number }>();
  private waiting = 0;

  constructor(private readonly options: LockRetryOptions) {}

  /** The `lock_timeout` of an attempt, in milliseconds. */
  get lockWaitMs(): number {
    return this.options.lockWaitMs();
  }

  /** How long a row may be locked before its attempts end with an error. */
  get patienceMs(): number {
    return this.options.patienceMs();
  }

  timeoutError(what: string | undefined, cause: unknown): Error {
    return this.options.timeoutError(what ?? 'a row of the job', this.patienceMs, cause);
  }

  isLocked(error: unknown): boolean {
    return this.options.isLocked(error);
  }

  /** One attempt, as one of the first attempts. */
  attempt<T>(attempt: () => Promise<T>): Promise<T> {
    return this.first.run(attempt);
  }

  /**
   * @param what is locked, for the error message
   * @param attempt waits at most `lockWaitMs` for a lock, and has done nothing if it is locked
   * @param key of the lock: of all attempts with one key, only one is made at a time
   * @throws the timeout error of the options; what `attempt` throws
   */
  async run<T>(
    what: string | undefined,
    attempt: () => Promise<T | typeof BLOCKED>,
    key?: string,
  ): Promise<T> {
    const { patienceMs } = this;
    const timeoutError = (cause: unknown) => this.timeoutError(what, cause);
    if (this.waiting >= MAX_WAITING) throw timeoutError(undefined);
    const giveUpAt = performance.now() + patienceMs;
    const repeat = () => this.repeat(attempt, giveUpAt, timeoutError);
    this.waiting++;
    try {
      return await (key === undefined ? repeat() : this.runInOrder(key, repeat, patienceMs));
    } catch (error) {
      throw error instanceof SemaphoreTimeoutError ? timeoutError(error) : error;
    } finally {
      this.waiting--;
    }
  }

  private async repeat<T>(
    attempt: () => Promise<T | typeof BLOCKED>,
    giveUpAt: number,
    timeoutError: (cause: unknown) => Error,
  ): Promise<T> {
    for (let turn = this.first; ; turn = this.repeated) {
      let cause: unknown;
      try {
        const result = await turn.run(attempt);
        if (result !== BLOCKED) return result;
      } catch (error) {
        if (!this.options.isLocked(error)) throw error;
        cause = error;
      }
      if (performance.now() >= giveUpAt) throw timeoutError(cause);
      await pause(Math.random() * MAX_PAUSE_MS);
    }
  }

  private async runInOrder<T>(key: string, work: () => Promise<T>, waitMs: number): Promise<T> {
    let line = this.byKey.get(key);
    if (!line) this.byKey.set(key, (line = { turn: new Semaphore(1), users: 0 }));
    line.users++;
    try {
      return await line.turn.run(work, waitMs);
    } finally {
      if (--line.users === 0) this.byKey.delete(key);
    }
  }
}
