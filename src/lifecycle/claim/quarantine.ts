import { databaseCode, isRefusal } from '../../database/database-error.js';
import type { Store } from '../../database/store.js';
import type { Queryable } from '../../database/tables.js';
import type { JobEvents } from '../../job/events.js';
import { quarantineEntries, quarantineMalformed, type QuarantinedEntry } from './quarantine.sql.js';

/** Per sweep: the next one continues. */
const MAX_PER_SWEEP = 1_000;

/** An entry that the database refused to write. */
export interface Refused {
  id: string;
  error: unknown;
}

/**
 * Quarantines entries whose rows cannot run; only an edit by hand in the database makes such rows. They block neither
 * the queue nor a pass, can be listed, and wait until a caller releases or cancels them.
 */
export class Quarantine {
  constructor(private readonly engine: { store: Store; events: JobEvents }) {}

  /** Quarantines an entry that the database refused to write. @throws the refusal, if the row breaks no known rule */
  async quarantine(refused: Refused): Promise<void> {
    this.emit(await this.quarantineRefused([refused], false));
  }

  /**
   * Quarantines refused entries: all of them if others were written meanwhile, otherwise those known to be malformed.
   * A cause outside the row, such as a trigger of the host app, must not empty the queue. The caller emits the result.
   * @throws the first refusal, when nothing is to be quarantined
   */
  async quarantineRefused(
    refused: Refused[],
    othersWritten: boolean,
    db: Queryable = this.engine.store.db,
  ): Promise<QuarantinedEntry[]> {
    const { tables } = this.engine.store;
    const quarantined: QuarantinedEntry[] = [];
    for (const { id, error } of refused) {
      const reason = othersWritten ? `the database refuses it (${databaseCode(error)})` : null;
      quarantined.push(...(await quarantineEntries(db, tables, [id], reason)));
    }
    if (refused.length > 0 && quarantined.length === 0) throw refused[0]!.error;
    return quarantined;
  }

  /** Runs work on many entries. If the database refuses, quarantines the malformed entries and runs it again. */
  async retryWithoutMalformed<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isRefusal(error) || (await this.sweep()) === 0) throw error;
      return work();
    }
  }

  /** Quarantines malformed entries. Reads all entries. @returns how many */
  async sweep(): Promise<number> {
    const { db, tables } = this.engine.store;
    return this.emit(await quarantineMalformed(db, tables, MAX_PER_SWEEP));
  }

  /** @returns how many */
  emit(quarantined: QuarantinedEntry[]): number {
    for (const entry of quarantined) this.engine.events.emit('entry.quarantined', entry);
    return quarantined.length;
  }
}
