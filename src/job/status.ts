/**
 * Status of a queue entry. QUARANTINED: its row is malformed and cannot run. DONE is never stored: `enqueueJob` returns it
 * for a deduplicated job that has left the queue.
 */
export const JobQueueStatus = {
  AVAILABLE: 'AVAILABLE',
  RUNNING: 'RUNNING',
  QUARANTINED: 'QUARANTINED',
  DONE: 'DONE',
} as const;
export type JobQueueStatus = (typeof JobQueueStatus)[keyof typeof JobQueueStatus];

/** Status of a run. */
export const JobRunStatus = { RUNNING: 'RUNNING', DONE: 'DONE' } as const;
export type JobRunStatus = (typeof JobRunStatus)[keyof typeof JobRunStatus];

/** Result of a run that is DONE. */
export const JobRunResult = { SUCCEEDED: 'SUCCEEDED', FAILED: 'FAILED' } as const;
export type JobRunResult = (typeof JobRunResult)[keyof typeof JobRunResult];
