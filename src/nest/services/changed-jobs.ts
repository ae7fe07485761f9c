import { dueTime, entryChanges, type JobChanges } from '../../control/change-options.js';
import type { EnqueueOptions } from '../../lifecycle/enqueue/enqueue-options.js';
import type { Duration } from '../../job/duration.js';
import type { JobQueueEntry, JobRun } from '../../database/entities/index.js';
import { idOf } from './arguments.js';
import {
  readFailedFilter,
  readJobFilter,
  type FailedJobFilter,
  type JobFilter,
} from './job-filter.js';
import type { BildadRuntime } from '../module/runtime.js';

/** Verbs of `JobEngineService` that change waiting jobs, retry finished ones, and do either in bulk. */
export abstract class ChangedJobs {
  protected abstract readonly bildad: BildadRuntime;

  /**
   * Changes the time at which a waiting job is due.
   * @param when a Date, or a duration from now; 0 is now
   * @throws JobNotAvailableError when it is not AVAILABLE, BildadConfigError; nothing changes
   */
  async rescheduleJob(
    entry: Pick<JobQueueEntry, 'id'>,
    when: Date | Duration,
  ): Promise<JobQueueEntry> {
    const due = dueTime(when, 'when');
    return this.bildad.changes.entry(idOf(entry, 'queue entry'), { due });
  }

  /**
   * Changes a waiting job; omitted fields stay. The context is validated as by `enqueueJob`.
   * @throws JobNotAvailableError when it is not AVAILABLE, InvalidJobContextError, BildadConfigError; nothing changes
   */
  async updateJob(
    entry: Pick<JobQueueEntry, 'id'>,
    { context, ...options }: JobChanges,
  ): Promise<JobQueueEntry> {
    return this.bildad.changes.entry(idOf(entry, 'queue entry'), entryChanges(options), context);
  }

  /**
   * Does a run's job again as a new job, with the same context or another one; the history stays as it
   * is, and the new entry's `retryOfJobRunId` names the run. It runs in what the first one was enqueued in (the module's
   * `carry`), whoever calls this.
   * @throws as `enqueueJob`; JobEncryptionKeyError where its context is encrypted, and this process has not got the key
   */
  async retryJob(
    run: Pick<JobRun, 'id' | 'jobTemplateId' | 'jobContext'>,
    { context, ...options }: EnqueueOptions & { context?: object } = {},
  ): Promise<JobQueueEntry> {
    const { jobTemplateId, jobContext } = run;
    const retried = { id: idOf(run, 'run'), jobTemplateId, jobContext };
    return this.bildad.enqueue.retryRun(retried, context, options);
  }

  /**
   * Ends all jobs of the queue that fit for good, as by `cancelJob`, in batches. What is enqueued meanwhile may be among them.
   * @returns how many waiting ones were deleted, and how many running ones were told to stop
   * @throws BildadConfigError
   */
  async cancelJobs(filter: JobFilter): Promise<{ removed: number; stopped: number }> {
    return this.bildad.many.cancel(readJobFilter(filter));
  }

  /** Makes all AVAILABLE jobs that fit due at another time, in batches. @throws BildadConfigError */
  async rescheduleJobs(filter: JobFilter, when: Date | Duration): Promise<{ rescheduled: number }> {
    const due = dueTime(when, 'when');
    const read = readJobFilter(filter);
    if (read.status !== undefined && read.status !== 'AVAILABLE') return { rescheduled: 0 };
    return { rescheduled: await this.bildad.many.reschedule(read, due) };
  }

  /**
   * Does all jobs again that fit, are over and failed, as by `retryJob`, in batches; not one whose retry is in the queue.
   * @returns how many, and how many were refused: their context is invalid by now, or their template inactive
   * @throws BildadConfigError
   */
  async retryJobs(filter: FailedJobFilter): Promise<{ retried: number; refused: number }> {
    return this.bildad.many.retry(readFailedFilter(filter));
  }
}
