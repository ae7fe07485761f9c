import { JobNotAvailableError } from '../model/errors.js';
import { isRefusal } from '../store/database-error.js';
import type { JobQueueEntry } from '../store/entities/index.js';
import { releaseEntry } from '../store/quarantine.store.js';
import { idOf } from './ids.js';
import type { BildadRuntime } from './runtime.js';

/** @throws JobNotAvailableError: it stays as it is */
export async function releaseQuarantined(
  { store: { dataSource, tables } }: BildadRuntime,
  entry: Pick<JobQueueEntry, 'id' | 'jobRunIdentifier'>,
): Promise<JobQueueEntry> {
  const id = idOf(entry, 'queue entry');
  const refuse = (why: string, cause?: unknown) =>
    new JobNotAvailableError(entry.jobRunIdentifier, why, { cause });
  let released: JobQueueEntry | null;
  try {
    released = await releaseEntry(dataSource, tables, id);
  } catch (error) {
    if (!isRefusal(error)) throw error;
    throw refuse('its row is malformed as it was: mend it first', error);
  }
  if (released) return released;
  throw refuse('it is not quarantined, or its template is gone');
}
