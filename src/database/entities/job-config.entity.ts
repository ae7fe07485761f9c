import { Column, Entity, PrimaryColumn } from 'typeorm';
import { BIGINT, DB_TIME } from './column-types.js';

/** One engine: the settings that an operator may change while it runs, and the lease of the guard that lets one node run a pass. */
@Entity({ name: 'job_configs', schema: 'bildad', synchronize: false })
export class JobConfig {
  @PrimaryColumn({ type: 'text' })
  name!: string;

  /** Page size of the lists in `JobsService`. */
  @Column({ name: 'default_page_size', type: 'integer', default: 25 })
  defaultPageSize!: number;

  /** Most entries that one pass starts. */
  @Column({ name: 'batch_size', type: 'integer', default: 1000 })
  batchSize!: number;

  /** Milliseconds after which a run whose node no longer renews it is expired. */
  @Column({ name: 'lease_ms', type: 'integer', default: 15000 })
  leaseMs!: number;

  /** The node that runs a pass now, or ran the last one. */
  @Column({ name: 'guard_holder', type: 'text', nullable: true })
  guardHolder!: string | null;

  /** Fencing number: grows by one with each pass. */
  @Column({ name: 'guard_term', ...BIGINT, default: 0 })
  guardTerm!: string;

  /** Null when no pass runs. */
  @Column({ name: 'guard_expires_at', type: 'timestamptz', nullable: true })
  guardExpiresAt!: Date | null;

  @Column({ name: 'inserted_at', ...DB_TIME })
  insertedAt!: Date;

  @Column({ name: 'updated_at', ...DB_TIME })
  updatedAt!: Date;
}
