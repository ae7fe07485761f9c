import { IsNull, Not } from 'typeorm';
import { toMilliseconds, type Duration } from '../../job/duration.js';
import { JobNotAvailableError } from '../../job/errors.js';
import { isRefusal } from '../../database/database-error.js';
import type { JobProcessFacts } from '../../job/process-facts.js';
import type { JobQueueEntry, JobRun } from '../../database/entities/index.js';
import { releaseEntry } from '../../lifecycle/claim/quarantine.sql.js';
import { unrunnableJobs, type UnrunnableJobs } from '../../node/unrunnable-jobs.sql.js';
import { idOf } from './ids.js';
import { currentConfig } from './job-config.js';
import { listPage, type Page } from './paging.js';
import { WatchedJobs } from './watched-jobs.js';

/** The part of `JobsService` about jobs that somebody may have to do something about: they run on, or wait for what will not come. */
export abstract class TroubledJobs extends WatchedJobs {
  /**
   * What is known of a run's process, on this node or another; of another what it told with its last heartbeat, five in a
   * lease. Null where the run is not RUNNING, or has not been for a second on another node.
   */
  async inspectJobProcess(run: Pick<JobRun, 'id'>): Promise<JobProcessFacts | null> {
    return this.bildad.inspection.of(idOf(run, 'run'));
  }

  /**
   * What waits, due for longer than `olderThan` (default `'1m'`), for a template that is inactive or that no living node
   * has a handler for: by code, how many and since when. Reads all entries if there are such templates.
   * @throws BildadConfigError
   */
  async listUnrunnableJobs({ olderThan = '1m' }: { olderThan?: Duration } = {}): Promise<
    UnrunnableJobs[]
  > {
    const { db, tables } = this.bildad.store;
    const ms = toMilliseconds(olderThan, 'olderThan');
    return unrunnableJobs(db, tables, ms);
  }

  /** Put aside because their rows cannot be run: `quarantineReason` says why. They wait for `releaseQuarantined` or `cancelJob`. */
  listQuarantinedJobs(page: Page = {}): Promise<JobQueueEntry[]> {
    const { store, entities } = this.bildad;
    return listPage<JobQueueEntry>(
      store.dataSource.getRepository(entities.JobQueueEntry),
      page,
      { where: { quarantinedAt: Not(IsNull()) }, order: { id: 'ASC' } },
      async () => (await currentConfig(this.bildad)).defaultPageSize,
    );
  }

  /**
   * Gives an entry back to the queue whose row somebody has mended; it starts at the next tick.
   * @throws JobNotAvailableError when nobody has, its template is gone, or it is not quarantined: it stays as it is
   */
  async releaseQuarantined(
    entry: Pick<JobQueueEntry, 'id' | 'jobRunIdentifier'>,
  ): Promise<JobQueueEntry> {
    const id = idOf(entry, 'queue entry');
    const { db, tables } = this.bildad.store;
    const refuse = (why: string, cause?: unknown) =>
      new JobNotAvailableError(entry.jobRunIdentifier, why, { cause });
    let released: JobQueueEntry | null;
    try {
      released = await releaseEntry(db, tables, id);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      throw refuse('its row is malformed as it was: mend it first', error);
    }
    if (released) return released;
    throw refuse('it is not quarantined, or its template is gone');
  }
}
