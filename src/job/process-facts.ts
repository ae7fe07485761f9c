import type { Isolation } from './job-handler.js';

/** Progress that a handler reported. */
export interface JobProgress {
  /** From 0 to 1. */
  fraction: number;
  message: string | null;
  at: Date;
}

/** Measurements of a running job's process. Null: not measured yet. */
export interface JobProcessFacts {
  jobRunId: string;
  nodeId: string;
  isolation: Isolation;
  /** Null while the job waits for a thread or process. */
  pid: number | null;
  /** 0 is the main thread. */
  threadId: number | null;
  /** In bytes: the memory of the whole process for inline and process, the JavaScript heap for thread. */
  memoryBytes: number | null;
  /** In milliseconds since its start: CPU time of the process; for a thread, the time its event loop was busy. */
  cpuMs: number | null;
  /** How late its event loop is, in milliseconds. */
  eventLoopLagMs: number | null;
  startedAt: Date;
  progress: JobProgress | null;
  /** Its signal was aborted. */
  stopping: boolean;
  /** Its run has ended, but the handler continues. */
  abandoned: boolean;
  /** When this was measured; on another node, at that node's last heartbeat. */
  seenAt: Date;
}
