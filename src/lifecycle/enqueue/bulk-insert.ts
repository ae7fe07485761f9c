import type { ContextContract } from '../../context/context-contract.js';
import { insertEntries, type EntryReference, type NewEntry } from './enqueue.sql.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import type { Queryable, Tables } from '../../database/tables.js';
import type { Carried } from './entry-envelope.js';
import type { ContextSource } from './context-source.js';
import { encodedBatches, type EncodedContext } from './encode-contexts.js';
import type { EntryDefaults } from './enqueue-options.js';
import { newIdentifier } from './identifier.js';

/** The second is sent as soon as the first is answered, before its entries are made of the answer. */
const BATCHES_UNDER_WAY = 2;

export interface CheckedBatches extends AsyncIterable<EncodedContext[]> {
  /** Lets go of what the contexts are read from. */
  close(): Promise<void>;
}

/**
 * The first batch is checked before a transaction begins, the others while those before them are inserted; but all of an
 * array before where a validator may wait for a connection that the transactions hold. What is read bit by bit is not
 * kept for that.
 */
export async function checkedBatches(
  contract: ContextContract,
  contexts: ContextSource,
  maxContextBytes: number,
): Promise<CheckedBatches> {
  const batches = encodedBatches(contract, contexts, maxContextBytes);
  const whole = !contract.selfContained && Array.isArray(contexts);
  const checked: EncodedContext[][] = [];
  const first = await batches.next();
  if (!first.done) checked.push(first.value);
  if (whole) for await (const batch of batches) checked.push(batch);
  return {
    async *[Symbol.asyncIterator]() {
      while (checked.length > 0) yield checked.shift()!;
      yield* batches;
    },
    close: async () => void (await batches.return()),
  };
}

/** What one transaction puts in, batch by batch. */
export class BulkInsert<Told extends EntryReference> {
  /** In the order of the contexts. */
  readonly told: Told[] = [];
  /** Whether one of them may start now. */
  due = false;
  /** It stands for all of them where nobody knows whether they were committed. */
  first: NewEntry | undefined;

  constructor(
    private readonly tables: Tables,
    private readonly defaults: EntryDefaults,
    private readonly batches: AsyncIterable<EncodedContext[]>,
    /** What the caller is to be told of an entry: of many that are read bit by bit, not their contexts. */
    private readonly asTold: (entry: JobQueueEntry) => Told,
    private readonly carried: Carried | null,
    /** Throws once the transaction they are part of is over. */
    private readonly check: () => void,
  ) {}

  /** @param refuse throws why an entry was left out */
  async into(
    db: Queryable,
    refuse: (db: Queryable, draft: NewEntry) => Promise<never>,
  ): Promise<void> {
    const insert = async (contexts: EncodedContext[]) => {
      const { carried } = this;
      const drafts = contexts.map((encoded) => {
        const draft = {
          ...this.defaults,
          ...encoded,
          jobRunIdentifier: newIdentifier(),
        };
        return carried?.wrap(draft) ?? draft;
      });
      this.first ??= drafts[0];
      this.check();
      const entries = await insertEntries(db, this.tables, drafts);
      const made: JobQueueEntry[] = [];
      for (const [index, entry] of entries.entries())
        made.push(entry ?? (await refuse(db, drafts[index]!)));
      await carried?.mark(db, this.tables, made);
      for (const entry of made) {
        this.due ||= !entry.scheduled;
        this.told.push(this.asTold(entry));
      }
    };
    const underWay: Promise<void>[] = [];
    try {
      for await (const contexts of this.batches) {
        if (underWay.length === BATCHES_UNDER_WAY) await underWay.shift();
        const inserting = insert(contexts);
        // Its rejection is met by a later `await`, which a long check may keep waiting.
        inserting.catch(() => undefined);
        underWay.push(inserting);
      }
      await Promise.all(underWay);
    } finally {
      // Nobody may roll back while a statement is under way.
      await Promise.allSettled(underWay);
    }
  }
}
