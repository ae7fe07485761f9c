import { AsyncLocalStorage } from 'node:async_hooks';

/** Calls of one listener that are under way at once. */
const AT_ONCE = 100;
/** Events that wait for it. What comes on top of that is dropped. */
const MOST_WAITING = 10_000;
/** Calls that are begun in one turn of the event loop. */
const A_TURN = 100;

/** No listener is part of what set it off: neither of a transaction, nor of a request. */
const outside = AsyncLocalStorage.snapshot();

/**
 * Calls of one listener: begun a turn after the event or later, in order. One that does not end takes a place and waits
 * for nobody; no more than memory for 10,000 events is spent on one that cannot keep up.
 */
export class ListenerQueue {
  private waiting: unknown[] = [];
  private underWay = 0;
  private turning = false;
  private overflown = false;
  private idle: (() => void)[] = [];
  private over = false;

  /**
   * @param call the listener; what it throws or rejects with is reported
   * @param report once for each overflow, and each failure
   */
  constructor(
    private readonly call: (payload: unknown) => unknown,
    private readonly report: (error: unknown) => void,
  ) {}

  add(payload: unknown): void {
    if (this.over) return;
    if (this.waiting.length >= MOST_WAITING) {
      if (this.overflown) return;
      this.overflown = true;
      this.report(new Error(`events are dropped: ${MOST_WAITING} wait for it already`));
      return;
    }
    this.waiting.push(payload);
    this.turn();
  }

  /** Resolves when nothing waits, and no call is under way. */
  empty(): Promise<void> {
    return this.isEmpty ? Promise.resolve() : new Promise((resolve) => this.idle.push(resolve));
  }

  /** Nothing is called any more. */
  close(): void {
    this.over = true;
    this.waiting = [];
  }

  private get isEmpty(): boolean {
    return this.waiting.length === 0 && this.underWay === 0;
  }

  private turn(): void {
    if (this.turning || this.waiting.length === 0 || this.underWay >= AT_ONCE) return;
    this.turning = true;
    outside(() => setImmediate(() => this.begin()));
  }

  private begin(): void {
    this.turning = false;
    const room = Math.min(A_TURN, AT_ONCE - this.underWay);
    for (const payload of this.waiting.splice(0, room)) void this.one(payload);
    if (this.waiting.length < MOST_WAITING / 2) this.overflown = false;
    this.settled();
    this.turn();
  }

  /** Never rejects. */
  private async one(payload: unknown): Promise<void> {
    this.underWay++;
    try {
      await this.call(payload);
    } catch (error) {
      this.report(error);
    }
    this.underWay--;
    this.settled();
    this.turn();
  }

  private settled(): void {
    if (!this.isEmpty) return;
    for (const resolve of this.idle.splice(0)) resolve();
  }
}
