import type { Duration } from './duration.js';

/** What is done with a job whose key another one holds. */
export type UniqueConflict = 'ignore' | 'replace' | 'reschedule' | 'keepLatest' | 'throw';

/** One job of its kind at a time under a key. */
export interface UniqueOptions {
  /** At most 500 characters. Keys of one template are of no concern to another. */
  key: string;
  /**
   * How long the job holds the key: `'started'` until its first run begins, `'finished'` until it has left the queue for
   * good, whatever its retries. Default `'finished'`.
   */
  until?: 'started' | 'finished';
  /** For so long after that the key is still taken. Default: not at all. */
  within?: Duration;
  /**
   * Where the key is taken. Default `'ignore'`: nothing is changed. `'replace'`: a job that waits gets this one's context,
   * options and time. `'reschedule'`: its time alone. `'keepLatest'`: a job that waits gets this one's context and options,
   * and keeps its time; if the job is under way, this one is kept until that has ended, the latest if there are more.
   * `'throw'`: a DuplicateJobError.
   */
  onConflict?: UniqueConflict;
}

/** A job for many calls, with the context of the last of them. */
export interface DebounceOptions {
  /** At most 500 characters. Keys of one template are of no concern to another. */
  key: string;
  /** The job is due when there was no call for so long. */
  wait: Duration;
  /** But no later than this after the first call. Default: however long the calls go on. */
  maxWait?: Duration;
}

/** The first of many calls, and no other for a while. */
export interface ThrottleOptions {
  /** At most 500 characters. Keys of one template are of no concern to another. */
  key: string;
  /** For so long after a job was added no other one is. */
  every: Duration;
}
