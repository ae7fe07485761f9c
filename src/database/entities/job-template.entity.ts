import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';
import type { BackoffData } from '../../job/backoff.js';
import type { JsonSchema } from '../../job/json.js';
import { DB_TIME, MILLISECONDS } from './column-types.js';

/** The definition of a kind of job: a unique code, a handler, a schema for its context, and defaults of its entries. */
@Entity({ name: 'job_templates', schema: 'bildad', synchronize: false })
export class JobTemplate {
  @PrimaryGeneratedColumn('identity', { type: 'bigint' })
  id!: string;

  @Column({ type: 'text' })
  name!: string;

  @Column({ type: 'text', unique: true })
  code!: string;

  /** An inactive template takes no new entries, and its queued ones wait. */
  @Column({ type: 'boolean', default: true })
  active!: boolean;

  @Column({ name: 'display_order', type: 'integer', default: 0 })
  displayOrder!: number;

  /** Name of the handler class. */
  @Column({ name: 'job_module_name', type: 'text' })
  jobModuleName!: string;

  /** Milliseconds. */
  @Column({ name: 'default_timeout_ms', ...MILLISECONDS, default: 3_600_000 })
  defaultTimeoutMs!: number;

  /** Retries after the first run: 3 means at most 4 runs. */
  @Column({ name: 'default_max_retries', type: 'integer', default: 3 })
  defaultMaxRetries!: number;

  /** Lower numbers run first. */
  @Column({ name: 'default_priority', type: 'integer', default: 5 })
  defaultPriority!: number;

  /** Null: the module's backoff. */
  @Column({ name: 'default_backoff', type: 'jsonb', nullable: true })
  defaultBackoff!: BackoffData | null;

  @Column({ name: 'job_context_schema', type: 'jsonb' })
  jobContextSchema!: JsonSchema;

  /** The version of the contexts that the handler declares. */
  @Column({ name: 'context_version', type: 'integer', default: 0 })
  contextVersion!: number;

  /** Contexts and results are stored encrypted. */
  @Column({ type: 'boolean', default: false })
  encrypt!: boolean;

  @Column({ name: 'inserted_at', ...DB_TIME })
  insertedAt!: Date;

  @Column({ name: 'updated_at', ...DB_TIME })
  updatedAt!: Date;
}
