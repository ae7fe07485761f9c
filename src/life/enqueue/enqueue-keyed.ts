import { setTimeout as pause } from 'node:timers/promises';
import { DuplicateJobError } from '../../model/enqueue-errors.js';
import { BildadDatabaseError } from '../../model/errors.js';
import { isUnknown } from '../../store/connection/lost.js';
import { Turns } from '../../store/connection/turns.js';
import { databaseCode, isConflict } from '../../store/database-error.js';
import type { NewEntry } from '../../store/enqueue.store.js';
import { enqueueKeyed, type Patience } from '../../store/identity.store.js';
import type { JobQueueEntry } from '../../store/entities/index.js';
import type { Queryable } from '../../store/tables.js';
import type { DoubtfulInserts } from './doubtful-inserts.js';
import type { Identity } from './identity-options.js';
import type { Store } from '../store.js';

/** A key may be locked for as long as somebody's transaction takes: connections are left for the rest. */
const AT_ONCE = 2;
/** Of a query timeout: an answer that comes late is taken for a connection that is lost. */
const LOCK_WAIT = 1 / 8;
const LONGEST_LOCK_WAIT_MS = 500;
/** So many query timeouts long a key may be locked. */
const PATIENCE = 2;
const LONGEST_PAUSE_MS = 50;

export interface Keyed {
  entry: JobQueueEntry;
  /** It is there because of this call. */
  added: boolean;
  /** Added, or changed: it may be due now. */
  written: boolean;
}

/** Jobs under a key: unique, debounced, throttled. Each is a statement of its own; those without a key know nothing of it. */
export class KeyedInserts {
  private readonly turns = new Turns(AT_ONCE);

  constructor(
    private readonly store: Store,
    private readonly doubtful: DoubtfulInserts,
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
    if (!entry && !draft.named)
      ({ outcome, entry } = await attempt(await anew(draft)));
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

  /** Nothing is held on to between two attempts. */
  private async patiently(
    draft: NewEntry,
    identity: Identity,
    patience: Patience,
  ) {
    const { db, tables } = this.store;
    const most = PATIENCE * db.queryTimeoutMs;
    const lockWaitMs = Math.ceil(
      Math.min(LOCK_WAIT * db.queryTimeoutMs, LONGEST_LOCK_WAIT_MS),
    );
    const giveUpAt = performance.now() + most;
    for (;;) {
      try {
        return await this.turns.take(() =>
          enqueueKeyed(db, tables, draft, identity, {
            ...patience,
            lockWaitMs,
          }),
        );
      } catch (error) {
        if (!isInTheWay(error)) throw error;
        if (performance.now() >= giveUpAt)
          throw new BildadDatabaseError(
            `the ${identity.kind} key of a job was locked by another transaction for more than ${most} ms: is one left open?`,
            databaseCode(error),
            { cause: error },
          );
      }
      await pause(Math.random() * LONGEST_PAUSE_MS);
    }
  }
}

/** lock_not_available, or a conflict: nothing was done. */
const isInTheWay = (error: unknown) =>
  databaseCode(error) === '55P03' || isConflict(error);
