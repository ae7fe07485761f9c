import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';
import type { BackoffData } from '../../job/backoff.js';
import type { JobQueueStatus } from '../../job/status.js';
import { BIGINT, CONTEXT, DB_TIME, MILLISECONDS } from './column-types.js';

/** A job that waits or runs. Deleted when the job is over; its runs stay. */
@Entity({ name: 'job_queue_entries', schema: 'bildad', synchronize: false })
export class JobQueueEntry {
  @PrimaryGeneratedColumn('identity', { type: 'bigint' })
  id!: string;

  @Column({ name: 'job_template_id', ...BIGINT })
  jobTemplateId!: string;

  /** The job's name: unique among the queued jobs and those in the history. */
  @Column({ name: 'job_run_identifier', type: 'text', unique: true })
  jobRunIdentifier!: string;

  @Column({ type: 'text', default: 'AVAILABLE' })
  status!: JobQueueStatus;

  /**
   * No column. True if `enqueueJob` added nothing, because this job holds the requested key. If the job
   * has left the queue, its `status` is DONE here, and unknown properties are those of the call.
   */
  declare deduplicated: boolean;

  /** Lower numbers run first. */
  @Column({ type: 'integer', default: 5 })
  priority!: number;

  /** The longest time of a run, in milliseconds. */
  @Column({ name: 'timeout_ms', ...MILLISECONDS })
  timeoutMs!: number;

  /** Retries after the first run: 3 means at most 4 runs. */
  @Column({ name: 'max_retries', type: 'integer' })
  maxRetries!: number;

  /** Null: the template's backoff, else the module's. */
  @Column({ type: 'jsonb', nullable: true })
  backoff!: BackoffData | null;

  /** JSON, redacted if it is encrypted. Not typed recursively: TypeORM's types of `where` could not expand it. */
  @Column({ name: 'job_context', ...CONTEXT })
  jobContext!: unknown;

  /** When the entry is due. */
  @Column({ name: 'run_at', ...DB_TIME })
  runAt!: Date;

  /** `runAt` was in the future when the entry was written. A pass clears it at that time, except for a job with crashes or one that is QUARANTINED. */
  @Column({ type: 'boolean', default: false })
  scheduled!: boolean;

  /** The retry number of the entry's next run. */
  @Column({ type: 'integer', default: 0 })
  retry!: number;

  /** Runs that do not count as retries: a shutdown interrupted them, or their node was lost. */
  @Column({ name: 'uncounted_runs', type: 'integer', default: 0 })
  uncountedRuns!: number;

  /** Lost nodes that ran this job, which may be why they died. */
  @Column({ type: 'integer', default: 0 })
  crashes!: number;

  /** The run of a RUNNING entry, the last run of an AVAILABLE one. */
  @Column({ name: 'current_job_run_id', ...BIGINT, nullable: true })
  currentJobRunId!: string | null;

  /** The run that this job repeats, for entries of `retryJob`. */
  @Column({ name: 'retry_of_job_run_id', ...BIGINT, nullable: true })
  retryOfJobRunId!: string | null;

  /** A job that has not started by then is missed. */
  @Column({ name: 'start_before', type: 'timestamptz', nullable: true })
  startBefore!: Date | null;

  /** When it was quarantined; null unless it is QUARANTINED. */
  @Column({ name: 'quarantined_at', type: 'timestamptz', nullable: true })
  quarantinedAt!: Date | null;

  /** Why it was quarantined: text and an SQLSTATE, no value of the row. */
  @Column({ name: 'quarantine_reason', type: 'text', nullable: true })
  quarantineReason!: string | null;

  @Column({ name: 'inserted_at', ...DB_TIME })
  insertedAt!: Date;

  @Column({ name: 'updated_at', ...DB_TIME })
  updatedAt!: Date;
}

// On the prototype: most entries have no key.
JobQueueEntry.prototype.deduplicated = false;
