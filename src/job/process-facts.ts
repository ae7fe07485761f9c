import type { Isolation } from './job-handler.js';

/** How far a handler says it is. */
export interface JobProgress {
  /** From 0 to 1. */
  fraction: number;
  message: string | null;
  at: Date;
}

/** What is known of a process at work. What nobody has measured yet is null. */
export interface JobProcessFacts {
  jobRunId: string;
  nodeId: string;
  isolation: Isolation;
  /** Null while it waits for a host. */
  pid: number | null;
  /** Of a thread; 0 is a process's main thread. */
  threadId: number | null;
  /** Inline and for processes all memory of the process, for threads the JavaScript heap, in bytes. */
  memoryBytes: number | null;
  /** CPU time of the process, for threads the time that its event loop was not idle, in milliseconds, since its start. */
  cpuMs: number | null;
  /** For how long its event loop has been late, in milliseconds. */
  eventLoopLagMs: number | null;
  startedAt: Date;
  progress: JobProgress | null;
  /** It was told to stop. */
  stopping: boolean;
  /** Its run is closed, and its handler goes on. */
  abandoned: boolean;
  /** When the facts were gathered: for a run on another node, at that node's last heartbeat. */
  seenAt: Date;
}
