import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';
import type { OutcomeKind } from '../../job/outcome.js';
import type { JobRunResult, JobRunStatus } from '../../job/status.js';
import { BIGINT, CONTEXT, DB_TIME, RESULT } from './column-types.js';

/** What runs or ran. Never deleted by the engine. */
@Entity({ name: 'job_runs', schema: 'bildad', synchronize: false })
export class JobRun {
  @PrimaryGeneratedColumn('identity', { type: 'bigint' })
  id!: string;

  @Column({ name: 'job_template_id', ...BIGINT })
  jobTemplateId!: string;

  /** The entry it was claimed from, which is gone when the job is over. */
  @Column({ name: 'job_queue_entry_id', ...BIGINT })
  jobQueueEntryId!: string;

  @Column({ name: 'job_run_identifier', type: 'text' })
  jobRunIdentifier!: string;

  /** 0 for the first run. Unique together with the identifier. */
  @Column({ type: 'integer' })
  retry!: number;

  /** Under this name the process is found on its node. */
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

  /** What the handler threw: name, message, stack, code, cause. */
  @Column({ type: 'jsonb', nullable: true })
  error!: {
    name: string;
    message: string;
    stack?: string;
    [key: string]: unknown;
  } | null;

  /** What the handler returned, as JSON. Of an encrypted job it prints as redacted; `waitForJob` decrypts it. */
  @Column({ ...RESULT, nullable: true })
  output!: unknown;

  /** JSON; prints as redacted where it is encrypted. Not a recursive type, which TypeORM's types of `where` could not expand. */
  @Column({ name: 'job_context', ...CONTEXT })
  jobContext!: unknown;

  /** A kill or cancel asked for on another node, until the owning node has seen it. */
  @Column({ name: 'kill_requested', type: 'text', nullable: true })
  killRequested!: 'killed' | 'cancelled' | null;

  /** When its job was done again last (`retryJob`, `retryJobs`), as a job of its own. */
  @Column({ name: 'retried_at', type: 'timestamptz', nullable: true })
  retriedAt!: Date | null;

  /** When its entry became due: `startedAt - availableAt` is the time it waited. */
  @Column({ name: 'available_at', type: 'timestamptz' })
  availableAt!: Date;

  @Column({ name: 'started_at', ...DB_TIME })
  startedAt!: Date;

  @Column({ name: 'timeout_at', type: 'timestamptz' })
  timeoutAt!: Date;

  /** Renewed by the owning node; past it the run counts as lost. */
  @Column({ name: 'expires_at', type: 'timestamptz' })
  expiresAt!: Date;

  @Column({ name: 'ended_at', type: 'timestamptz', nullable: true })
  endedAt!: Date | null;

  @Column({ name: 'inserted_at', ...DB_TIME })
  insertedAt!: Date;

  @Column({ name: 'updated_at', ...DB_TIME })
  updatedAt!: Date;
}
