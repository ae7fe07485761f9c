import { setImmediate as turn } from 'node:timers/promises';

interface Waiting<Item, Result> {
  item: Item;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

export const BYTES_PER_STATEMENT = 4 * 1_048_576;

/** How many of the first items fit into one statement: at least one. */
function batchLength<T>(items: readonly T[], most: number, bytesOf: (item: T) => number): number {
  let length = 1;
  let bytes = items.length > 0 ? bytesOf(items[0]!) : 0;
  while (length < Math.min(most, items.length)) {
    bytes += bytesOf(items[length]!);
    if (bytes > BYTES_PER_STATEMENT) break;
    length++;
  }
  return length;
}

/**
 * Writes that share a commit: what is asked for while a statement is under way leaves together with
 * the next one. No timer and no waiting at low load, large batches at high load. Results and
 * rejections are each asker's own.
 */
export class Gather<Item, Result> {
  private waiting: Waiting<Item, Result>[] = [];
  private flushing = false;

  constructor(
    private readonly options: {
      /** Items per statement at the most. */
      most: number;
      /** About how many bytes an item brings along; a statement takes some 4 MB of them. */
      bytesOf: (item: Item) => number;
      /** One result per item, in their order. */
      write: (items: Item[]) => Promise<Result[]>;
      /** Whether an error may be some items' fault: then each is tried without its neighbours. */
      isSomeonesFault: (error: unknown) => boolean;
    },
  ) {}

  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, resolve, reject });
      if (!this.flushing) void this.flush();
    });
  }

  private async flush(): Promise<void> {
    this.flushing = true;
    // Those who ask in this very turn of the event loop come along.
    await Promise.resolve();
    while (this.waiting.length > 0) {
      await this.write(this.nextBatch());
      // Who was answered just now and asks again comes along with those who waited, not one statement later: with
      // 32 callers that is twice the batch, and 1.6 times the calls a second.
      await turn();
    }
    this.flushing = false;
  }

  private nextBatch(): Waiting<Item, Result>[] {
    const { most, bytesOf } = this.options;
    const fitting = batchLength(this.waiting, most, ({ item }) => bytesOf(item));
    return this.waiting.splice(0, fitting);
  }

  /** Never rejects. */
  private async write(batch: Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await this.options.write(batch.map(({ item }) => item));
      for (const [index, { resolve }] of batch.entries()) resolve(results[index]!);
    } catch (error) {
      if (batch.length > 1 && this.options.isSomeonesFault(error)) {
        const half = Math.ceil(batch.length / 2);
        await this.write(batch.slice(0, half));
        await this.write(batch.slice(half));
      } else for (const { reject } of batch) reject(error);
    }
  }
}
