import { BildadConfigError } from '../../job/errors.js';
import { duration, refuseUnknown } from '../../options/reader.js';
import type { JobProgress } from '../../job/process-facts.js';
import type { JobUpdate, RunLog, WatchOptions } from '../../job/job-update.js';
import type { JobRun } from '../../database/entities/index.js';
import { notesOfJob, notesOfRun } from '../../features/run-log/run-log.sql.js';
import { identifier, idOf } from './ids.js';
import type { BildadRuntime } from '../module/runtime.js';

/** The part of `JobsService` about what jobs say while they run. */
export abstract class WatchedJobs {
  protected abstract readonly bildad: BildadRuntime;

  /**
   * What becomes of a job, whatever node runs it, as it happens: first how it is now, then each change, its progress,
   * lines and output, until it is over. Its states are the database's own, and none is left out; see docs/events.md for the rest.
   * Leave the loop, and nothing of it is left. It ends without an `end` where this engine stops.
   * @throws BildadConfigError at once; in the loop JobNotFoundError, and the signal's reason
   */
  watch(jobRunIdentifier: string, options: WatchOptions = {}): AsyncIterableIterator<JobUpdate> {
    refuseUnknown(options, ['signal', 'after', 'pollInterval'], '', 'watch()');
    const { signal, after, pollInterval = '1s' } = options;
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw new BildadConfigError('signal', 'must be an AbortSignal', {
        got: signal,
        where: 'watch()',
      });
    return this.bildad.waits.watches.watch(identifier(jobRunIdentifier), {
      signal,
      after,
      pollMs: duration({ min: 100 })(pollInterval, 'pollInterval', 'watch()'),
    });
  }

  /**
   * The lines that are kept (the module's option `logs`) of a run, or of all runs of a job, the first one first. Runs of which
   * nothing is kept are not among them. @param of a run, or a job's identifier
   */
  async logs(of: string | Pick<JobRun, 'id'>): Promise<RunLog[]> {
    const { db, tables } = this.bildad.store;
    const found = await (typeof of === 'string'
      ? notesOfJob(db, tables, 'log', identifier(of))
      : notesOfRun(db, tables, 'log', idOf(of, 'run')));
    return found.map(({ jobRunId, retry, value }) => {
      const { dropped, lines } = JSON.parse(value) as RunLog;
      const dated = lines.map((line) => ({ ...line, at: new Date(line.at) }));
      return { jobRunId, retry, dropped, lines: dated };
    });
  }

  /** What the newest run of a job that has said so said last of how far it is, half a second ago at the most; null: none has. */
  async progressOf(
    jobRunIdentifier: string,
  ): Promise<(JobProgress & Pick<RunLog, 'jobRunId' | 'retry'>) | null> {
    const { db, tables } = this.bildad.store;
    const name = identifier(jobRunIdentifier);
    const found = await notesOfJob(db, tables, 'progress', name);
    const last = found.at(-1);
    if (!last) return null;
    const { jobRunId, retry, value, at } = last;
    const told = JSON.parse(value) as Pick<JobProgress, 'fraction' | 'message'>;
    return { jobRunId, retry, ...told, at };
  }
}
