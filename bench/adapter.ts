/** What a contender has to offer. Types only: the peers' package compiles against this file as well. */

/** The job that everybody runs: about 100 bytes of JSON, and a handler that does nothing. */
export interface Payload {
  n: number;
  text: string;
}

export interface Target {
  /** Of the database, or of the Redis server. */
  url: string;
  /** Which of its configurations the adapter is to use. */
  config: string;
}

export interface Producer {
  enqueueOne(payload: Payload): Promise<unknown>;
  enqueueBulk(payloads: Payload[]): Promise<unknown>;
  /** A transaction of the caller's that inserts a row into `bench_rows (n, text)` and enqueues a job, on one of ten connections. */
  enqueueWithin?(payload: Payload): Promise<unknown>;
  /** Enqueues a job and resolves when it is over. */
  untilDone?(payload: Payload): Promise<unknown>;
}

export interface Adapter {
  /** Makes the schema, and the queue if there must be one. */
  prepare(target: Target): Promise<void>;
  produce(target: Target): Promise<Producer>;
  /** Resolves when the worker is up; it may have begun to call `onJob` by then. */
  work(target: Target, onJob: (payload: Payload) => void): Promise<unknown>;
  /**
   * Whether the end of some job is not recorded yet: SQL that answers with one boolean, or a function
   * where there is no SQL. The clock of a drain stops when this is false, so that a system which writes
   * its ends late, in batches, is timed to the last of them.
   */
  unfinished: string | ((target: Target) => Promise<boolean>);
}

/** Milliseconds on the machine's monotonic clock, which all processes share. */
export type Moment = number;
