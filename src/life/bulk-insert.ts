import type { ContextContract } from '../policy/context.js';
import { insertEntries, type NewEntry } from '../store/enqueue.store.js';
import type { JobQueueEntry } from '../store/entities/index.js';
import type { Queryable, Tables } from '../store/tables.js';
import type { Carried } from './carried.js';
import { encodedBatches, type EncodedContext } from './encode-contexts.js';
import type { EntryDefaults } from './enqueue-options.js';
import { newIdentifier } from './identifier.js';

/** The second is sent as soon as the first is answered, before its entries are made of the answer. */
const BATCHES_UNDER_WAY = 2;

/**
 * The first batch is checked before a transaction begins, the others while those before them are inserted; but
 * all of them before where a validator may wait for a connection that the transactions hold.
 */
export async function checkedBatches(
  contract: ContextContract,
  contexts: readonly unknown[],
  maxContextBytes: number,
): Promise<AsyncIterable<EncodedContext[]>> {
  const batches = encodedBatches(contract, contexts, maxContextBytes);
  const checked: EncodedContext[][] = [];
  do {
    const next = await batches.next();
    if (next.done) break;
    checked.push(next.value);
  } while (!contract.selfContained);
  return (async function* () {
    yield* checked;
    yield* batches;
  })();
}

/** What one transaction puts in, batch by batch. */
export class BulkInsert {
  readonly entries: JobQueueEntry[] = [];
  /** It stands for all of them where nobody knows whether they were committed. */
  first: NewEntry | undefined;

  constructor(
    private readonly tables: Tables,
    private readonly defaults: EntryDefaults,
    private readonly batches: AsyncIterable<EncodedContext[]>,
    private readonly carried: Carried | null,
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
      const entries = await insertEntries(db, this.tables, drafts);
      for (const [index, entry] of entries.entries())
        this.entries.push(entry ?? (await refuse(db, drafts[index]!)));
      await carried?.mark(db, this.tables, this.entries.slice(-drafts.length));
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
