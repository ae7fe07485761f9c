import type { Duration } from './duration.js';
import type { LogLevel } from './job-handler.js';
import type { JsonValue } from './json.js';
import type { JobQueueStatus, JobRunResult } from './status.js';

interface Update {
  /** Where it stands in the job's life: for `WatchOptions.after`. */
  id: string;
}

interface RunUpdate extends Update {
  jobRunId: string;
  /** 0 for the first run. */
  retry: number;
}

/** Something that became of a job, to one who watches it. Plain data, without context and result. */
export type JobUpdate =
  /** It waits for its first run, or for the next one. */
  | (Update & {
      type: 'queued';
      status: JobQueueStatus;
      /** Of the run that it waits for. */
      retry: number;
      runAt: Date;
    })
  | (RunUpdate & { type: 'running'; startedAt: Date | null })
  | (RunUpdate & { type: 'progress'; fraction: number; message: string | null; at: Date })
  /** A line of `job.log` or `job.logger`. */
  | (RunUpdate & { type: 'log'; at: Date; level: LogLevel; message: string })
  | (RunUpdate & { type: 'stream'; at: Date; chunk: JsonValue })
  /** So many lines and chunks of the run are not to be had any more. */
  | (RunUpdate & { type: 'gap'; missing: number })
  /** The run ended, and the job is tried again. */
  | (RunUpdate & {
      type: 'retry';
      result: JobRunResult | null;
      reason: string | null;
      endedAt: Date | null;
    })
  /** The job is over: the last. `jobRunId` is null where it left the queue and has no run. */
  | (Update & {
      type: 'end';
      jobRunId: string | null;
      retry: number;
      result: JobRunResult | null;
      reason: string | null;
      endedAt: Date | null;
    });

export interface WatchOptions {
  /** Ends the watching: the loop throws its reason. */
  signal?: AbortSignal;
  /** Begin behind this update, by its `id`: what a browser sends as `Last-Event-ID`. Default, and where
   * it is no such id: at what is now. */
  after?: string;
  /** Look at the database as often at the least; from `'100ms'`. Default `'1s'`. */
  pollInterval?: Duration;
}

/** A line that was kept. */
export interface KeptLine {
  at: Date;
  level: LogLevel;
  message: string;
}

/** What is kept of the lines of a run. */
export interface RunLog {
  jobRunId: string;
  /** 0 for the first run. */
  retry: number;
  /** Lines of before that there was no room for. */
  dropped: number;
  lines: KeptLine[];
}
