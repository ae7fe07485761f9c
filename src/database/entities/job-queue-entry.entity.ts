import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';
import type { BackoffData } from '../../job/backoff.js';
import type { JobQueueStatus } from '../../job/status.js';
import { BIGINT, CONTEXT, DB_TIME, MILLISECONDS } from './column-types.js';

/** What should run. Deleted when the job is over; its runs stay. */
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
   * No column: whether `enqueueJob` added nothing, because this job holds the key that was asked for. If it has left the
   * queue, its `status` is DONE here, and what is no more known of it is
   * as the call asked.
   */
  declare deduplicated: boolean;

  /** Lower runs first. */
  @Column({ type: 'integer', default: 5 })
  priority!: number;

  /** Milliseconds that a run may take. */
  @Column({ name: 'timeout_ms', ...MILLISECONDS })
  timeoutMs!: number;

  /** Retries after the first run: 3 means at most 4 runs. */
  @Column({ name: 'max_retries', type: 'integer' })
  maxRetries!: number;

  /** Null: the template's, else the module's. */
  @Column({ type: 'jsonb', nullable: true })
  backoff!: BackoffData | null;

  /** JSON; prints as redacted where it is encrypted. Not a recursive type, which TypeORM's types of `where` could not expand. */
  @Column({ name: 'job_context', ...CONTEXT })
  jobContext!: unknown;

  /** When the entry is due. */
  @Column({ name: 'run_at', ...DB_TIME })
  runAt!: Date;

  /** `runAt` lay ahead when the entry was written; a pass clears it when the time has come. A job with crashes stays so, and one that is QUARANTINED. */
  @Column({ type: 'boolean', default: false })
  scheduled!: boolean;

  /** The retry number of the entry's next run. */
  @Column({ type: 'integer', default: 0 })
  retry!: number;

  /** Runs that did not cost a retry: a shutdown interrupted them, or their node was lost. */
  @Column({ name: 'uncounted_runs', type: 'integer', default: 0 })
  uncountedRuns!: number;

  /** Nodes that were lost while they ran this job and may have died of it. */
  @Column({ type: 'integer', default: 0 })
  crashes!: number;

  /** The run of a RUNNING entry, the last run of an AVAILABLE one. */
  @Column({ name: 'current_job_run_id', ...BIGINT, nullable: true })
  currentJobRunId!: string | null;

  /** The run this job does again, for entries made by `retryJob`. */
  @Column({ name: 'retry_of_job_run_id', ...BIGINT, nullable: true })
  retryOfJobRunId!: string | null;

  /** If it has not been started once by then, it is missed. */
  @Column({ name: 'start_before', type: 'timestamptz', nullable: true })
  startBefore!: Date | null;

  /** When it was put aside; null unless it is QUARANTINED. */
  @Column({ name: 'quarantined_at', type: 'timestamptz', nullable: true })
  quarantinedAt!: Date | null;

  /** Why it was put aside: words and an SQLSTATE, no value of the row. */
  @Column({ name: 'quarantine_reason', type: 'text', nullable: true })
  quarantineReason!: string | null;

  @Column({ name: 'inserted_at', ...DB_TIME })
  insertedAt!: Date;

  @Column({ name: 'updated_at', ...DB_TIME })
  updatedAt!: Date;
}

// Not in each entry: most were not asked for under a key.
JobQueueEntry.prototype.deduplicated = false;
