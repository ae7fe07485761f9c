import type { JobEvents } from '../../job/events.js';
import { databaseCode, isRefusal } from '../../database/database-error.js';
import { quarantineEntries, quarantineMalformed, type QuarantinedEntry } from './quarantine.sql.js';
import type { Queryable } from '../../database/tables.js';
import type { Store } from '../../database/store.js';

/** At once: a hand that spoils more leaves the rest for the next look. */
const MOST = 1_000;

/** An entry that the database refused to write. */
export interface Refused {
  id: string;
  error: unknown;
}

/**
 * Where entries go whose rows cannot be run, as only a hand in the database leaves them: aside, so that they hold up
 * neither the queue nor a pass, and to be seen. They are released or cancelled by somebody.
 */
export class Quarantine {
  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
  ) {}

  /** Puts an entry aside that the database refused to write. @throws what it said, when the row is not to blame for all we know */
  async put(refused: Refused): Promise<void> {
    this.tell(await this.judge([refused], false));
  }

  /**
   * Puts aside what the database refused: all of it where others were written meanwhile, otherwise what is known to be
   * malformed. A cause that is not in the row, such as a trigger of the host's, must not empty the queue. To be told of.
   * @throws what the database said, when nothing is to be put aside
   */
  async judge(
    refused: Refused[],
    othersWritten: boolean,
    db: Queryable = this.store.db,
  ): Promise<QuarantinedEntry[]> {
    const aside: QuarantinedEntry[] = [];
    for (const { id, error } of refused) {
      const reason = othersWritten ? `the database refuses it (${databaseCode(error)})` : null;
      const { tables } = this.store;
      aside.push(...(await quarantineEntries(db, tables, [id], reason)));
    }
    if (refused.length > 0 && aside.length === 0) throw refused[0]!.error;
    return aside;
  }

  /** Does work on many entries; if the database refuses to, does it again without those that are malformed. */
  async around<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isRefusal(error) || (await this.sweep()) === 0) throw error;
      return work();
    }
  }

  /** Puts aside what is malformed. Reads all entries. @returns how many */
  async sweep(): Promise<number> {
    const { db, tables } = this.store;
    return this.tell(await quarantineMalformed(db, tables, MOST));
  }

  tell(aside: QuarantinedEntry[]): number {
    for (const entry of aside) this.events.emit('entry.quarantined', entry);
    return aside.length;
  }
}
