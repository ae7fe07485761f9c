import type { JobEvents } from '../model/events.js';
import { databaseCode, isRefusal } from '../store/database-error.js';
import {
  quarantineEntries,
  quarantineMalformed,
  type QuarantinedEntry,
} from '../store/quarantine.store.js';
import type { Queryable } from '../store/tables.js';
import type { Store } from './store.js';

/** At once: a hand that spoils more leaves the rest for the next look. */
const MOST = 1_000;

/**
 * Where entries go whose rows cannot be run, as only a hand in the database leaves them: aside, so that they hold up
 * neither the queue nor a pass, and to be seen. They are released or cancelled by somebody.
 */
export class Quarantine {
  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
  ) {}

  /** Puts entries aside that the database refused to write. */
  async put(entryIds: string[], refused: unknown): Promise<void> {
    const { dataSource } = this.store;
    this.tell(await this.putQuietly(dataSource, entryIds, refused));
  }

  /** The same within a transaction, which is to be told of when it is committed. */
  putQuietly(
    db: Queryable,
    entryIds: string[],
    refused: unknown,
  ): Promise<QuarantinedEntry[]> {
    const reason = `the database refuses it (${databaseCode(refused)})`;
    return quarantineEntries(db, this.store.tables, entryIds, reason);
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
    const { dataSource, tables } = this.store;
    return this.tell(await quarantineMalformed(dataSource, tables, MOST));
  }

  tell(aside: QuarantinedEntry[]): number {
    for (const entry of aside) this.events.emit('entry.quarantined', entry);
    return aside.length;
  }
}
