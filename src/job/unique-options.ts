import type { Duration } from './duration.js';

/** What happens to a job if another one holds its key. */
export type UniqueConflict = 'ignore' | 'replace' | 'reschedule' | 'keepLatest' | 'throw';

/** At most one job of a template holds a key at a time. */
export interface UniqueOptions {
  /** Up to 500 characters. Each template has its own keys. */
  key: string;
  /**
   * How long the job holds the key: until its first run starts (`'started'`), or until it leaves the queue after its last
   * run (`'finished'`). Default `'finished'`.
   */
  until?: 'started' | 'finished';
  /** The key stays taken for this time after that. Default: 0. */
  within?: Duration;
  /**
   * What happens if the key is taken. Default `'ignore'`: nothing. `'replace'`: a waiting job gets the context, options and
   * time of this one. `'reschedule'`: only the time. `'keepLatest'`: a waiting job gets the context and options, and keeps
   * its time; if the job is running, the latest such call is enqueued when it has finished. `'throw'`: the call fails
   * with a DuplicateJobError.
   */
  onConflict?: UniqueConflict;
}

/** Combines many calls into one job, which gets the context of the last call. */
export interface DebounceOptions {
  /** Up to 500 characters. Each template has its own keys. */
  key: string;
  /** The job is due when there was no call for this time. */
  wait: Duration;
  /** The job is due at the latest this time after the first call. Default: no limit. */
  maxWait?: Duration;
}

/** Enqueues the first of many calls, and ignores further calls for a while. */
export interface ThrottleOptions {
  /** Up to 500 characters. Each template has its own keys. */
  key: string;
  /** How long further calls are ignored after a job was enqueued. */
  every: Duration;
}
