import type { Duration } from './duration.js';
import type { LogLevel } from './job-handler.js';
import type { JsonValue } from './json.js';
import type { JobQueueStatus, JobRunResult } from './status.js';

interface Update {
  /** Its position in the job's history, for `WatchOptions.after`. */
  id: string;
}

interface RunUpdate extends Update {
  jobRunId: string;
  /** 0 for the first run. */
  retry: number;
}

/** A change of a watched job. Plain data, without context and result. */
export type JobUpdate =
  /** The job waits for its first or next run. */
  | (Update & {
      type: 'queued';
      status: JobQueueStatus;
      /** The number of the run that it waits for. */
      retry: number;
      runAt: Date;
    })
  | (RunUpdate & { type: 'running'; startedAt: Date | null })
  | (RunUpdate & { type: 'progress'; fraction: number; message: string | null; at: Date })
  /** A line of `job.log` or `job.logger`. */
  | (RunUpdate & { type: 'log'; at: Date; level: LogLevel; message: string })
  | (RunUpdate & { type: 'stream'; at: Date; chunk: JsonValue })
  /** This many lines and chunks of the run are no longer available. */
  | (RunUpdate & { type: 'gap'; missing: number })
  /** The run ended, and the job is retried. */
  | (RunUpdate & {
      type: 'retry';
      result: JobRunResult | null;
      reason: string | null;
      endedAt: Date | null;
    })
  /** The job has ended: the last update. `jobRunId` is null if the job left the queue without a run. */
  | (Update & {
      type: 'end';
      jobRunId: string | null;
      retry: number;
      result: JobRunResult | null;
      reason: string | null;
      endedAt: Date | null;
    });

export interface WatchOptions {
  /** Stops watching: the loop throws its reason. */
  signal?: AbortSignal;
  /** Start after the update with this `id`, such as a browser's `Last-Event-ID`. Default, and if there is no such update:
   * start with the current state. */
  after?: string;
  /** How often the database is read if no notification comes; from `'100ms'`. Default `'1s'`. */
  pollInterval?: Duration;
}

/** A stored log line. */
export interface KeptLine {
  at: Date;
  level: LogLevel;
  message: string;
}

/** The stored log lines of a run. */
export interface RunLog {
  jobRunId: string;
  /** 0 for the first run. */
  retry: number;
  /** How many earlier lines were dropped. */
  dropped: number;
  lines: KeptLine[];
}
