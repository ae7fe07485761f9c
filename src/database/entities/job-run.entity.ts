import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';
import type { OutcomeKind } from '../../job/outcome.js';
import type { JobRunResult, JobRunStatus } from '../../job/status.js';
import { BIGINT, CONTEXT, DB_TIME, RESULT } from './column-types.js';

/** One execution of a job. The engine never deletes it. */
@Entity({ name: 'job_runs', schema: 'bildad', synchronize: false })
export class JobRun {
  @PrimaryGeneratedColumn('identity', { type: 'bigint' })
  id!: string;

  @Column({ name: 'job_template_id', ...BIGINT })
  jobTemplateId!: string;

  /** The entry it was claimed from, which is deleted when the job is over. */
  @Column({ name: 'job_queue_entry_id', ...BIGINT })
  jobQueueEntryId!: string;

  @Column({ name: 'job_run_identifier', type: 'text' })
  jobRunIdentifier!: string;

  /** 0 for the first run. Unique together with the identifier. */
  @Column({ type: 'integer' })
  retry!: number;

  /** The name of its process on its node. */
  @Column({ name: 'job_process_name', type: 'text' })
  jobProcessName!: string;

  /** The node that runs it. */
  @Column({ name: 'node_id', type: 'text' })
  nodeId!: string;

  @Column({ type: 'text', default: 'RUNNING' })
  status!: JobRunStatus;

  @Column({ type: 'text', nullable: true })
  result!: JobRunResult | null;

  /**
   * How a DONE run ended: `completed`, `failed`, `timedOut`, `cancelled` and so on, see `docs/state-machine.md`. To decide by,
   * while `reason` is for people. Null while it is RUNNING.
   */
  @Column({ type: 'text', nullable: true })
  outcome!: OutcomeKind | null;

  /** Why a FAILED run failed, at most 8,000 characters. */
  @Column({ type: 'text', nullable: true })
  reason!: string | null;

  /** The handler's error: name, message, stack, code, cause. */
  @Column({ type: 'jsonb', nullable: true })
  error!: {
    name: string;
    message: string;
    stack?: string;
    [key: string]: unknown;
  } | null;

  /** The handler's result as JSON, redacted if the job is encrypted; `waitForJob` decrypts it. */
  @Column({ ...RESULT, nullable: true })
  output!: unknown;

  /** JSON, redacted if it is encrypted. Not typed recursively: TypeORM's types of `where` could not expand it. */
  @Column({ name: 'job_context', ...CONTEXT })
  jobContext!: unknown;

  /** A kill or cancel that another node requested, until the owning node has seen it. */
  @Column({ name: 'kill_requested', type: 'text', nullable: true })
  killRequested!: 'killed' | 'cancelled' | null;

  /** When `retryJob` or `retryJobs` last repeated it as a new job. */
  @Column({ name: 'retried_at', type: 'timestamptz', nullable: true })
  retriedAt!: Date | null;

  /** When its entry became due: `startedAt - availableAt` is the time it waited. */
  @Column({ name: 'available_at', type: 'timestamptz' })
  availableAt!: Date;

  @Column({ name: 'started_at', ...DB_TIME })
  startedAt!: Date;

  @Column({ name: 'timeout_at', type: 'timestamptz' })
  timeoutAt!: Date;

  /** The owning node renews it. After it the run counts as orphaned. */
  @Column({ name: 'expires_at', type: 'timestamptz' })
  expiresAt!: Date;

  @Column({ name: 'ended_at', type: 'timestamptz', nullable: true })
  endedAt!: Date | null;

  @Column({ name: 'inserted_at', ...DB_TIME })
  insertedAt!: Date;

  @Column({ name: 'updated_at', ...DB_TIME })
  updatedAt!: Date;
}
