/**
 * What a queue entry does now (upstream's words), or that it was put aside, because its row cannot be run (ours). DONE is
 * no row: so an `enqueueJob` is told that holds back its job for the sake of one that has left the queue.
 */
export const JobQueueStatus = {
  AVAILABLE: 'AVAILABLE',
  RUNNING: 'RUNNING',
  QUARANTINED: 'QUARANTINED',
  DONE: 'DONE',
} as const;
export type JobQueueStatus = (typeof JobQueueStatus)[keyof typeof JobQueueStatus];

/** What a run does now (upstream's words). */
export const JobRunStatus = { RUNNING: 'RUNNING', DONE: 'DONE' } as const;
export type JobRunStatus = (typeof JobRunStatus)[keyof typeof JobRunStatus];

/** How a run that is DONE ended (upstream's words). */
export const JobRunResult = {
  SUCCEEDED: 'SUCCEEDED',
  FAILED: 'FAILED',
} as const;
export type JobRunResult = (typeof JobRunResult)[keyof typeof JobRunResult];
