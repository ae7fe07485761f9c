import { DuplicateJobError } from '../../job/errors.js';
import { isUnknown } from '../../database/connection/connection-errors.js';
import type { NewEntry } from './enqueue.sql.js';
import { enqueueKeyed, type Patience } from './unique-keys.sql.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import type { Queryable } from '../../database/tables.js';
import type { DoubtfulInserts } from './insert-recovery.js';
import type { Identity } from './unique-key-options.js';
import type { LockRetry } from '../../concurrency/lock-retry.js';
import type { Store } from '../../database/store.js';

export interface Keyed {
  entry: JobQueueEntry;
  /** It is there because of this call. */
  added: boolean;
  /** Added, or changed: it may be due now. */
  written: boolean;
}

/** Jobs under a key: unique, debounced, throttled. Each is a statement of its own; those without a key know nothing of it. */
export class KeyedInserts {
  constructor(
    private readonly store: Store,
    private readonly doubtful: DoubtfulInserts,
    private readonly locks: LockRetry,
  ) {}

  /**
   * @param anew the draft for the template as it is now: an identifier that was not chosen is nobody else's
   * @param transaction the caller's, whose own timeouts say how long to wait for a key that another transaction holds
   * @returns null where the template is inactive or gone, or the identifier taken
   * @throws DuplicateJobError, BildadDatabaseError when another transaction holds the key for too long
   */
  async insert(
    draft: NewEntry,
    identity: Identity,
    anew: (draft: NewEntry) => Promise<NewEntry>,
    transaction?: Queryable,
  ): Promise<Keyed | null> {
    const attempt = (draft: NewEntry) =>
      transaction
        ? enqueueKeyed(transaction, this.store.tables, draft, identity)
        : this.once(draft, identity);
    draft.delayMs = identity.delayMs ?? draft.delayMs;
    let { outcome, entry } = await attempt(draft);
    if (!entry && !draft.named) ({ outcome, entry } = await attempt(await anew(draft)));
    if (!entry) return null;
    const added = outcome === 'added';
    if (!added && identity.throws)
      throw new DuplicateJobError(entry.jobRunIdentifier, identity.key);
    entry.deduplicated = !added;
    return { entry, added, written: outcome !== 'taken' };
  }

  /** Also where the connection is lost meanwhile. */
  private async once(draft: NewEntry, identity: Identity) {
    const sentAt = performance.now();
    try {
      return await this.patiently(draft, identity, {});
    } catch (error) {
      if (!isUnknown(error)) throw error;
      const { queryTimeoutMs } = this.store.db;
      return this.doubtful.insist(draft, () =>
        this.patiently(draft, identity, {
          doubtMs: performance.now() - sentAt + 2 * queryTimeoutMs,
        }),
      );
    }
  }

  private patiently(draft: NewEntry, identity: Identity, patience: Patience) {
    const { db, tables } = this.store;
    const { lockWaitMs } = this.locks;
    return this.locks.run(
      `the ${identity.kind} key of a job`,
      () => enqueueKeyed(db, tables, draft, identity, { ...patience, lockWaitMs }),
      `${draft.jobTemplateId} ${identity.kind} ${identity.key}`,
    );
  }
}
