import { Column, Entity, PrimaryColumn } from 'typeorm';
import type { JsonValue } from '../../job/json.js';
import type { JobProcessFacts } from '../../job/process-facts.js';
import { BIGINT, DB_TIME, MILLISECONDS } from './column-types.js';

/** As JSON has it. */
type StoredJson<T> = { [K in keyof T]: T[K] extends Date ? string : T[K] };

/** Why a node ended: it shut down, stopped itself because it lost the database, or its heartbeat stopped. */
export type JobNodeEnd = 'shutdown' | 'fenced' | 'lost';

/** One incarnation of a process that runs jobs. Its id is never used again, not even by the same process. */
@Entity({ name: 'job_nodes', schema: 'bildad', synchronize: false })
export class JobNode {
  /** Host, pid and a UUID. The runs it claims carry it as their `nodeId`. */
  @PrimaryColumn({ type: 'text' })
  id!: string;

  @Column({ name: 'engine_name', type: 'text' })
  engineName!: string;

  @Column({ type: 'text' })
  host!: string;

  @Column({ type: 'integer' })
  pid!: number;

  /** Of the package. */
  @Column({ type: 'text' })
  version!: string;

  /** The template codes of its handlers. */
  @Column({ name: 'template_codes', type: 'text', array: true })
  templateCodes!: string[];

  /** Jobs that it runs at once. */
  @Column({ type: 'integer' })
  concurrency!: number;

  /** Handlers at work, at its last heartbeat. */
  @Column({ type: 'integer', default: 0 })
  running!: number;

  /** Handlers that still work although their runs have ended, at its last heartbeat. They keep their slots until they end. */
  @Column({ type: 'integer', default: 0 })
  abandoned!: number;

  /** Its processes that were at least a second old when it last renewed the leases of its runs; at most 1,000. Times are ISO 8601. */
  @Column({ type: 'jsonb', default: [] })
  processes!: StoredJson<JobProcessFacts>[];

  /** What features report of it, by their names. */
  @Column({ type: 'jsonb', default: {} })
  facts!: Record<string, JsonValue>;

  /** The longest time its event loop was late between the last two heartbeats, in milliseconds. */
  @Column({ name: 'event_loop_lag_ms', type: 'integer', default: 0 })
  eventLoopLagMs!: number;

  /** Since when its event loop does not turn; null while it does. */
  @Column({ name: 'blocked_since', type: 'timestamptz', nullable: true })
  blockedSince!: Date | null;

  /** Memory of its process at its last heartbeat, in bytes. */
  @Column({ name: 'rss_bytes', ...MILLISECONDS, default: 0 })
  rssBytes!: number;

  @Column({ name: 'started_at', ...DB_TIME })
  startedAt!: Date;

  /** Grows by one with each heartbeat. */
  @Column({ ...BIGINT, default: 0 })
  heartbeats!: string;

  @Column({ name: 'heartbeat_at', ...DB_TIME })
  heartbeatAt!: Date;

  /** Past it the node counts as lost, unless another heartbeat comes. */
  @Column({ name: 'expires_at', type: 'timestamptz' })
  expiresAt!: Date;

  /** Until when the leases go that its event loop renewed last. */
  @Column({ name: 'renewed_until', type: 'timestamptz' })
  renewedUntil!: Date;

  /** Null while it is alive, for all the database knows. */
  @Column({ name: 'ended_at', type: 'timestamptz', nullable: true })
  endedAt!: Date | null;

  @Column({ name: 'end_reason', type: 'text', nullable: true })
  endReason!: JobNodeEnd | null;
}
