import { BYTES_PER_STATEMENT } from '../../concurrency/write-batcher.js';
import { encodeContext, type ContextContract } from '../../context/context-contract.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import type { Queryable } from '../../database/tables.js';
import {
  BildadConfigError,
  InvalidJobContextError,
  type ContextViolation,
} from '../../job/errors.js';
import { typeName } from '../../options/reader.js';
import type { EntryReference, NewEntry } from './enqueue.sql.js';
import type { EncodedContext, PreparedBulk } from './prepare-entry.js';

/** Larger batches were no faster, and let the database wait for the first one. */
const ROWS_PER_BATCH = 2_000;
/** The second is sent as soon as the first is answered, before entries are made of the answer. */
const MAX_BATCHES_IN_FLIGHT = 2;
const MAX_VIOLATIONS = 100;

/** Many contexts: an array, or an iterable that is read as they are inserted. */
export type ContextSource = readonly unknown[] | Iterable<unknown> | AsyncIterable<unknown>;

/** @throws BildadConfigError */
export function checkSource(contexts: unknown): asserts contexts is ContextSource {
  if (typeof contexts === 'object' && contexts !== null) {
    const source = contexts as Partial<Iterable<unknown> & AsyncIterable<unknown>>;
    if (typeof source[Symbol.iterator] === 'function') return;
    if (typeof source[Symbol.asyncIterator] === 'function') return;
  }
  throw new BildadConfigError(
    'contexts',
    `must be an array, an iterable or an async iterable of contexts, not ${typeName(contexts)}`,
  );
}

/** The entries of one `enqueueJobs` call: contexts are validated while the ones before them are inserted. */
export class BulkInsert<Result extends EntryReference> {
  /** Of each batch, in the order of the contexts. */
  private batchResults: Result[][] = [];
  /** An entry may start now. */
  hasDue = false;
  /** The first entry. */
  first: NewEntry | undefined;
  /** Batches that were read, and may have to be inserted again: all until the first one is inserted. */
  private readonly read: EncodedContext[][] = [];
  private firstIsInserted = false;

  private constructor(
    private readonly bulk: PreparedBulk,
    private readonly source: AsyncGenerator<EncodedContext[], void>,
    /** Creates the caller's result for an entry. */
    private readonly toResult: (entry: JobQueueEntry) => Result,
  ) {}

  /**
   * Validates the first batch, so that no transaction is begun for an invalid one. All of an array is validated first
   * where validators may wait for a connection that the transactions hold.
   * @throws InvalidJobContextError
   */
  static async begin<Result extends EntryReference>(
    bulk: PreparedBulk,
    contexts: ContextSource,
    maxContextBytes: number,
    toResult: (entry: JobQueueEntry) => Result,
  ): Promise<BulkInsert<Result>> {
    const { contract } = bulk;
    const source = encodedBatches(contract, contexts, maxContextBytes);
    const insert = new BulkInsert(bulk, source, toResult);
    const readsAll = !contract.selfContained && Array.isArray(contexts);
    for (let next = await source.next(); !next.done; next = await source.next()) {
      insert.read.push(next.value);
      if (!readsAll) break;
    }
    return insert;
  }

  get results(): Result[] {
    return this.batchResults.flat();
  }

  /** Inserts all entries; may be called again if the first batch was not inserted. */
  async insertAll(
    db: Queryable,
    insertBatch: (db: Queryable, entries: NewEntry[]) => Promise<JobQueueEntry[]>,
  ): Promise<void> {
    this.batchResults = [];
    this.first = undefined;
    const insert = async (contexts: EncodedContext[]) => {
      const results: Result[] = [];
      this.batchResults.push(results);
      const entries = this.bulk.toEntries(contexts);
      this.first ??= entries[0];
      for (const entry of await insertBatch(db, entries)) {
        this.hasDue ||= !entry.scheduled;
        results.push(this.toResult(entry));
      }
      if (contexts === this.read[0]) this.firstIsInserted = true;
    };
    const inFlight: Promise<void>[] = [];
    try {
      for await (const contexts of this.batches()) {
        if (inFlight.length === MAX_BATCHES_IN_FLIGHT) await inFlight.shift();
        const inserting = insert(contexts);
        // A later `await` handles its rejection; validation may take long until then.
        inserting.catch(() => undefined);
        inFlight.push(inserting);
      }
      await Promise.all(inFlight);
    } finally {
      // The caller must not roll back while a statement is in flight.
      await Promise.allSettled(inFlight);
    }
  }

  /** Closes the source of the contexts. */
  async close(): Promise<void> {
    await this.source.return();
  }

  private async *batches(): AsyncGenerator<EncodedContext[], void> {
    for (let index = 0; ; index++) {
      if (this.firstIsInserted) {
        this.read.splice(0, index);
        index = 0;
      }
      if (index === this.read.length) {
        const next = await this.source.next();
        if (next.done) return;
        this.read.push(next.value);
      }
      yield this.read[index]!;
    }
  }
}

/**
 * Encodes contexts in batches of a statement's size, one batch at a time. The source is closed when no more is read.
 * @throws InvalidJobContextError with the violations of all contexts, by index; where the source is no array, of the
 *   2,000 contexts after the first invalid one
 */
async function* encodedBatches(
  contract: ContextContract,
  contexts: ContextSource,
  maxBytes: number,
): AsyncGenerator<EncodedContext[], void> {
  const maxFurther = Array.isArray(contexts) ? Infinity : ROWS_PER_BATCH;
  const encoder = new BatchEncoder(contract, maxBytes, maxFurther);
  if (Symbol.asyncIterator in contexts)
    for await (const context of contexts) {
      const fullBatch = await encoder.add(context);
      if (fullBatch) yield fullBatch;
      if (encoder.isRefused) break;
    }
  // Not with the loop above, which would await a promise among them: a promise is no context.
  else
    for (const context of contexts) {
      const fullBatch = await encoder.add(context);
      if (fullBatch) yield fullBatch;
      if (encoder.isRefused) break;
    }
  const last = encoder.end();
  if (last.length > 0) yield last;
}

class BatchEncoder {
  private index = 0;
  private batch: EncodedContext[] = [];
  private bytes = 0;
  private readonly violations: ContextViolation[] = [];
  private firstInvalid = Infinity;

  constructor(
    private readonly contract: ContextContract,
    private readonly maxBytes: number,
    /** So many contexts after the first invalid one are examined. */
    private readonly maxFurther: number,
  ) {}

  /** Enough violations are known to refuse all contexts. */
  get isRefused(): boolean {
    return (
      this.violations.length >= MAX_VIOLATIONS || this.index - this.firstInvalid > this.maxFurther
    );
  }

  /** @returns the batch before this context, if it is full */
  async add(context: unknown): Promise<EncodedContext[] | null> {
    const index = this.index++;
    try {
      const { json, value } = await encodeContext(this.contract, context, this.maxBytes);
      // After the first invalid context, the others are examined for their violations only.
      if (this.violations.length > 0) return null;
      const fullBatch =
        this.batch.length === ROWS_PER_BATCH ||
        (this.batch.length > 0 && this.bytes + json.length > BYTES_PER_STATEMENT)
          ? this.take()
          : null;
      this.batch.push({ jobContext: json, context: value });
      this.bytes += json.length;
      return fullBatch;
    } catch (error) {
      if (!(error instanceof InvalidJobContextError)) throw error;
      this.take();
      this.firstInvalid = Math.min(this.firstInvalid, index);
      this.violations.push(...atIndex(index, error.violations));
      return null;
    }
  }

  /** @throws InvalidJobContextError */
  end(): EncodedContext[] {
    if (this.violations.length > 0) throw new InvalidJobContextError(this.violations);
    return this.take();
  }

  private take(): EncodedContext[] {
    const { batch } = this;
    this.batch = [];
    this.bytes = 0;
    return batch;
  }
}

const atIndex = (index: number, violations: ContextViolation[]) =>
  violations.map(({ path, message }) => ({
    path: path ? `[${index}].${path}` : `[${index}]`,
    message,
  }));
