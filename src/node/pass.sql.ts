import { ensureConfig } from '../database/job-config.sql.js';
import type { EngineContext } from '../database/engine-context.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';
import type { PassStep } from '../lifecycle/extension-points.js';

/** A pass takes milliseconds. A node that dies in a pass must not block the others for longer than this. */
const MAX_GUARD_MS = 15_000;
const GUARD_LEASE = `least(c.lease_ms, ${MAX_GUARD_MS}) * interval '1 ms'`;

/** How long a node holds the guard without a renewal. */
export const guardLeaseMs = (leaseMs: number) => Math.min(leaseMs, MAX_GUARD_MS);

export interface GuardAnswer {
  /** Fencing number of the pass that may begin; null when another node holds the guard. */
  term: string | null;
  batchSize: number;
  leaseMs: number;
}

/**
 * Acquires the guard if it is free by the database's clock. If it is not, `insist` asks its holder for one more round
 * before it releases the guard, so that the caller's request is carried out. One short statement and no session state:
 * PgBouncer in transaction mode is fine.
 * @returns null when there is no config row
 */
export async function acquireGuard(
  db: Queryable,
  { configs }: Tables,
  name: string,
  node: string,
  insist: boolean,
): Promise<GuardAnswer | null> {
  const [answer] = await rows<GuardAnswer>(
    db,
    `WITH config AS MATERIALIZED (
       SELECT name, batch_size, lease_ms,
              guard_expires_at IS NULL OR guard_expires_at <= clock_timestamp() AS free
       FROM ${configs} WHERE name = $1 FOR UPDATE
     ), acquired AS (
       UPDATE ${configs} c SET
         guard_holder = CASE WHEN free THEN $2 ELSE guard_holder END,
         guard_term = CASE WHEN free THEN guard_term + 1 ELSE guard_term END,
         guard_expires_at = CASE WHEN free THEN clock_timestamp() + ${GUARD_LEASE} ELSE guard_expires_at END,
         guard_round_requested = NOT free
       FROM config WHERE c.name = config.name AND (config.free OR $3)
       RETURNING c.guard_term
     )
     SELECT CASE WHEN free THEN guard_term::text END AS term, batch_size AS "batchSize", lease_ms AS "leaseMs"
     FROM config LEFT JOIN acquired ON true`,
    [name, node, insist],
  );
  return answer ?? null;
}

/**
 * One pass at a time over all nodes: a lease on the engine's `JobConfig` row by the database's clock, numbered with a
 * fencing term. The guard saves work. Two passes at once are harmless, because every statement of a pass is conditional.
 */
export class PassGuard {
  constructor(private readonly engine: EngineContext) {}

  /**
   * @param insist when another node holds the guard, ask it for one more round
   * @returns the term, or null when another node holds the guard
   */
  async acquire(insist: boolean): Promise<string | null> {
    const { store, node, settings } = this.engine;
    const { db, tables } = store;
    const tryAcquire = () => acquireGuard(db, tables, settings.name, node.id, insist);
    let answer = await tryAcquire();
    if (!answer) {
      await ensureConfig(db, tables, settings.name);
      answer = await tryAcquire();
    }
    if (!answer) return null;
    node.batchSize = answer.batchSize;
    node.leaseMs = answer.leaseMs;
    return answer.term;
  }

  /** @returns false when the lease had run out and another node took over */
  async renew(term: string): Promise<boolean> {
    const { configs } = this.engine.store.tables;
    const renewed = await this.query(
      `WITH renewed AS (
         UPDATE ${configs} c SET guard_expires_at = clock_timestamp() + ${GUARD_LEASE}
         WHERE name = $1 AND guard_holder = $2 AND guard_term = $3 RETURNING name
       ) SELECT name FROM renewed`,
      term,
    );
    return renewed.length > 0;
  }

  /** @returns true when another round was asked for meanwhile: then the guard is renewed and still held */
  async release(term: string): Promise<boolean> {
    const { configs } = this.engine.store.tables;
    const [released] = await this.query<{ requested: boolean }>(
      `WITH config AS MATERIALIZED (
         SELECT name, guard_round_requested AS requested FROM ${configs}
         WHERE name = $1 AND guard_holder = $2 AND guard_term = $3 FOR UPDATE
       ), released AS (
         UPDATE ${configs} c SET
           guard_expires_at = CASE WHEN requested THEN clock_timestamp() + ${GUARD_LEASE} END,
           guard_round_requested = false
         FROM config WHERE c.name = config.name RETURNING config.requested
       ) SELECT * FROM released`,
      term,
    );
    return released?.requested ?? false;
  }

  /** Releases the guard, even if another round was requested. */
  async drop(term: string): Promise<void> {
    const { configs } = this.engine.store.tables;
    await this.query(
      `WITH dropped AS (
         UPDATE ${configs} SET guard_expires_at = NULL, guard_round_requested = false
         WHERE name = $1 AND guard_holder = $2 AND guard_term = $3
       ) SELECT`,
      term,
    );
  }

  private query<T>(sql: string, term: string): Promise<T[]> {
    const { store, node, settings } = this.engine;
    return rows<T>(store.db, sql, [settings.name, node.id, term]);
  }
}

/** When each step runs next: at most once in `every` milliseconds over all nodes, by the database's clock. */
export class StepTimes {
  private readonly times = new Map<PassStep, { checkedAt: number; hasMore: boolean }>();
  private readonly startedAt: number;

  constructor(
    private readonly engine: EngineContext,
    private readonly now = () => performance.now(),
  ) {
    this.startedAt = now();
  }

  /** @returns the steps that are due, in their order. Checks only steps in the database that can be due. */
  async claimDueSteps(steps: readonly PassStep[]): Promise<PassStep[]> {
    const now = this.now();
    const candidates = steps.filter((step) => step.every > 0 && now >= this.nextCheckAt(step));
    for (const step of candidates) this.timesOf(step).checkedAt = now;
    const claimed = candidates.length > 0 ? await this.claimSteps(candidates) : [];
    return steps.filter(
      (step) => step.every === 0 || this.timesOf(step).hasMore || claimed.includes(step.name),
    );
  }

  /** @param hasMore run the step in the next pass too, whatever its interval */
  recordRun(step: PassStep, hasMore: boolean): void {
    this.timesOf(step).hasMore = hasMore;
  }

  /** A new node does not run all steps at once: they wait for a lease, or their interval if that is shorter. */
  private nextCheckAt(step: PassStep): number {
    const known = this.times.get(step);
    if (known && known.checkedAt > -Infinity) return known.checkedAt + step.every;
    return this.startedAt + Math.min(step.every, this.engine.node.leaseMs);
  }

  private timesOf(step: PassStep) {
    let times = this.times.get(step);
    if (!times) this.times.set(step, (times = { checkedAt: -Infinity, hasMore: false }));
    return times;
  }

  private async claimSteps(steps: PassStep[]): Promise<string[]> {
    const { store, settings } = this.engine;
    const { configs } = store.tables;
    const due = await rows<{ name: string }>(
      store.db,
      `WITH config AS MATERIALIZED (
         SELECT name, step_times FROM ${configs} WHERE name = $1 FOR UPDATE
       ), due AS MATERIALIZED (
         SELECT step.name FROM config, unnest($2::text[], $3::float8[]) AS step (name, every_ms)
         WHERE coalesce((step_times ->> step.name)::timestamptz, '-infinity')
           <= clock_timestamp() - every_ms * interval '1 ms'
       ), acquired AS (
         UPDATE ${configs} c SET step_times = c.step_times ||
           (SELECT coalesce(jsonb_object_agg(name, clock_timestamp()), '{}') FROM due)
         FROM config WHERE c.name = config.name
       ) SELECT name FROM due`,
      [settings.name, steps.map(({ name }) => name), steps.map(({ every }) => every)],
    );
    return due.map(({ name }) => name);
  }
}
