import { rows, type Queryable, type Tables } from '../database/tables.js';

/** A pass takes milliseconds; that of a node that died in it must not stop the others for longer than its jobs wait. */
const GUARD_LEASE = "least(interval '15 s', c.lease_ms * interval '1 ms')";

export interface GuardAnswer {
  /** Fencing number of the pass that may begin; null when another node holds the guard. */
  term: string | null;
  batchSize: number;
  leaseMs: number;
}

/**
 * Takes the single-runner guard when it is free by the database's clock. When it is not, `insist` asks
 * its holder to look once more before letting go, so that what the caller wanted done is done. One
 * short statement and no session state: PgBouncer in transaction mode is fine.
 * @returns null when the config row is not there
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
     ), taken AS (
       UPDATE ${configs} c SET
         guard_holder = CASE WHEN free THEN $2 ELSE guard_holder END,
         guard_term = CASE WHEN free THEN guard_term + 1 ELSE guard_term END,
         guard_expires_at = CASE WHEN free THEN clock_timestamp() + ${GUARD_LEASE} ELSE guard_expires_at END,
         guard_look_again = NOT free
       FROM config WHERE c.name = config.name AND (config.free OR $3)
       RETURNING c.guard_term
     )
     SELECT CASE WHEN free THEN guard_term::text END AS term, batch_size AS "batchSize", lease_ms AS "leaseMs"
     FROM config LEFT JOIN taken ON true`,
    [name, node, insist],
  );
  return answer ?? null;
}

/**
 * Lets the guard go, unless somebody asked for another look meanwhile: then it is kept and renewed.
 * @returns whether to look again; `'lost'` when the lease had run out and another node took over
 */
export async function releaseGuard(
  db: Queryable,
  { configs }: Tables,
  name: string,
  node: string,
  term: string,
): Promise<'released' | 'again' | 'lost'> {
  const [row] = await rows<{ again: boolean }>(
    db,
    `WITH config AS MATERIALIZED (
       SELECT name, guard_look_again AS again FROM ${configs}
       WHERE name = $1 AND guard_holder = $2 AND guard_term = $3 FOR UPDATE
     ), let AS (
       UPDATE ${configs} c SET
         guard_expires_at = CASE WHEN again THEN clock_timestamp() + ${GUARD_LEASE} END,
         guard_look_again = false
       FROM config WHERE c.name = config.name RETURNING config.again
     ) SELECT * FROM let`,
    [name, node, term],
  );
  if (!row) return 'lost';
  return row.again ? 'again' : 'released';
}

/** Lets the guard go whatever was asked for: for a pass that failed. */
export async function dropGuard(
  db: Queryable,
  { configs }: Tables,
  name: string,
  node: string,
  term: string,
): Promise<void> {
  await db.query(
    `UPDATE ${configs} SET guard_expires_at = NULL, guard_look_again = false
     WHERE name = $1 AND guard_holder = $2 AND guard_term = $3`,
    [name, node, term],
  );
}

/** Takes the look at every entry, which is due once a lease. @returns whether it was */
export async function takeSweep(
  db: Queryable,
  { configs }: Tables,
  name: string,
  leaseMs: number,
): Promise<boolean> {
  const taken = await rows(
    db,
    `WITH taken AS (
       UPDATE ${configs} SET swept_at = clock_timestamp()
       WHERE name = $1 AND swept_at <= clock_timestamp() - $2::float8 * interval '1 ms' RETURNING name
     ) SELECT name FROM taken`,
    [name, leaseMs],
  );
  return taken.length > 0;
}
