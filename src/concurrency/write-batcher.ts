import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import { BLOCKED, type LockRetry } from './lock-retry.js';

interface Waiting<Item, Result> {
  item: Item;
  bytes: number;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

export const BYTES_PER_STATEMENT = 4 * 1_048_576;
/** Most time between two attempts to write blocked items. */
const MAX_PAUSE_MS = 50;

export interface WriteBatcherOptions<Item, Result> {
  /** Most items per statement. */
  maxItems: number;
  /** Approximate size of an item. A statement takes at most `BYTES_PER_STATEMENT`, or one item. */
  bytesOf: (item: Item) => number;
  /** Returns one result per item, in their order: `BLOCKED` for an item whose row is locked. */
  write: (items: Item[]) => Promise<(Result | typeof BLOCKED)[]>;
  /** Whether single items may have caused an error. Then each half of the batch is written again. */
  isItemFault?: (error: unknown) => boolean;
  /**
   * Says how long and how blocked items are retried, beside the batches. Without it, a lock
   * timeout is an error like any other, and `write` must not return `BLOCKED`.
   */
  lockRetry?: LockRetry;
  /** What may be locked of an item: a name for the error message, and a key of the lock for `LockRetry.run`. */
  lockOf?: (item: Item) => { what: string; key: string };
  /**
   * Writes items whose rows were locked, and waits for no lock. The blocked items are then retried as one batch: a
   * short statement that locks hundreds of rows must not lead to hundreds of statements. Without it they are retried
   * one by one with `write`.
   */
  writeBlocked?: (items: Item[]) => Promise<(Result | typeof BLOCKED)[]>;
}

/**
 * Group commit: items that are added while a statement is in flight share the next statement. There
 * is no timer, so a single item is written at once; under load the batches grow. Each caller gets
 * its own result or error. One batch is written at a time; locked items do not hold up the others.
 */
export class WriteBatcher<Item, Result> {
  private waiting: Waiting<Item, Result>[] = [];
  private blocked: { one: Waiting<Item, Result>; giveUpAt: number }[] = [];
  private retrying = false;
  private inFlight = 0;
  private flushing = false;

  constructor(private readonly options: WriteBatcherOptions<Item, Result>) {}

  /** Items without a result yet, including those in statements. */
  get size(): number {
    return this.waiting.length + this.inFlight;
  }

  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      const bytes = this.options.bytesOf(item);
      this.waiting.push({ item, bytes, resolve, reject });
      if (!this.flushing) void this.flush();
    });
  }

  private async flush(): Promise<void> {
    this.flushing = true;
    // Items that are added in the same turn of the event loop share the first statement.
    await Promise.resolve();
    while (this.waiting.length > 0) {
      const batch = this.waiting.splice(0, this.nextBatchLength());
      this.inFlight += batch.length;
      await this.writeBatch(batch);
      // A caller that adds its next item when it gets its result joins the next batch, not the one
      // after it: with 32 callers, batches are twice as large and 1.6 times the calls are answered.
      await nextTurn();
    }
    this.flushing = false;
  }

  private nextBatchLength(): number {
    const { waiting } = this;
    const max = Math.min(this.options.maxItems, waiting.length);
    let length = 1;
    let bytes = waiting[0]!.bytes;
    while (length < max) {
      bytes += waiting[length]!.bytes;
      if (bytes > BYTES_PER_STATEMENT) break;
      length++;
    }
    return length;
  }

  /** Never rejects. */
  private async writeBatch(batch: Waiting<Item, Result>[]): Promise<void> {
    const { write, isItemFault, lockRetry } = this.options;
    try {
      const results = await write(batch.map(({ item }) => item));
      for (const [index, one] of batch.entries()) {
        const result = results[index]!;
        if (result === BLOCKED) this.retryBlocked(one);
        else this.settle(one, result);
      }
    } catch (error) {
      if (batch.length > 1 && isItemFault?.(error)) {
        const half = Math.ceil(batch.length / 2);
        await this.writeBatch(batch.slice(0, half));
        await this.writeBatch(batch.slice(half));
      } else if (lockRetry?.isLocked(error)) for (const one of batch) this.retryBlocked(one);
      else for (const one of batch) this.fail(one, error);
    }
  }

  private retryBlocked(one: Waiting<Item, Result>): void {
    if (!this.options.writeBlocked) return this.retryAlone(one);
    this.blocked.push({ one, giveUpAt: performance.now() + this.options.lockRetry!.patienceMs });
    if (!this.retrying) void this.retryTogether();
  }

  /** Never rejects. */
  private async retryTogether(): Promise<void> {
    const { writeBlocked, lockRetry, maxItems } = this.options;
    this.retrying = true;
    while (this.blocked.length > 0) {
      await pause(Math.random() * MAX_PAUSE_MS);
      const batch = this.blocked.splice(0, maxItems);
      try {
        const results = await writeBlocked!(batch.map(({ one }) => one.item));
        for (const [index, { one, giveUpAt }] of batch.entries()) {
          const result = results[index]!;
          if (result !== BLOCKED) this.settle(one, result);
          else if (performance.now() < giveUpAt) this.blocked.push({ one, giveUpAt });
          else this.fail(one, lockRetry!.timeoutError(this.lockOf(one)?.what, undefined));
        }
      } catch {
        // One of them may be at fault: each gets a result or an error of its own.
        for (const { one } of batch) this.retryAlone(one);
      }
    }
    this.retrying = false;
  }

  private retryAlone(one: Waiting<Item, Result>): void {
    const { write, writeBlocked, lockRetry } = this.options;
    const lock = this.lockOf(one);
    const attempt = async () => (await (writeBlocked ?? write)([one.item]))[0]!;
    lockRetry!.run(lock?.what, attempt, lock?.key).then(
      (result) => this.settle(one, result),
      (error: unknown) => this.fail(one, error),
    );
  }

  private lockOf(one: Waiting<Item, Result>) {
    return this.options.lockOf?.(one.item);
  }

  private settle(one: Waiting<Item, Result>, result: Result): void {
    this.inFlight--;
    one.resolve(result);
  }

  private fail(one: Waiting<Item, Result>, error: unknown): void {
    this.inFlight--;
    one.reject(error);
  }
}
