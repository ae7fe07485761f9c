import { JobConfig } from './entities/index.js';
import { rows, type Queryable, type Tables } from './tables.js';

const COLUMNS = `name, default_page_size AS "defaultPageSize", batch_size AS "batchSize", lease_ms AS "leaseMs",
  guard_holder AS "guardHolder", guard_term::text AS "guardTerm", guard_expires_at AS "guardExpiresAt",
  inserted_at AS "insertedAt", updated_at AS "updatedAt"`;

/** Resolves when the database answers and has the tables. It reads one row, whatever is queued. */
export async function pingDatabase(db: Queryable, { configs }: Tables): Promise<void> {
  await rows(db, `SELECT FROM ${configs} LIMIT 1`);
}

/** Inserts the engine's row with its defaults if there is none. */
export async function ensureConfig(
  db: Queryable,
  { configs }: Tables,
  name: string,
): Promise<void> {
  await db.query(`INSERT INTO ${configs} (name) VALUES ($1) ON CONFLICT (name) DO NOTHING`, [name]);
}

export async function readConfig(
  db: Queryable,
  { configs }: Tables,
  name: string,
): Promise<JobConfig | null> {
  const [row] = await rows<JobConfig>(db, `SELECT ${COLUMNS} FROM ${configs} WHERE name = $1`, [
    name,
  ]);
  return row ? Object.assign(new JobConfig(), row) : null;
}

export interface ConfigChanges {
  defaultPageSize?: number;
  batchSize?: number;
  leaseMs?: number;
}

export async function updateConfig(
  db: Queryable,
  { configs }: Tables,
  name: string,
  changes: ConfigChanges,
): Promise<JobConfig | null> {
  const [row] = await rows<JobConfig>(
    db,
    `WITH changed AS (
       UPDATE ${configs} SET
         default_page_size = coalesce($2, default_page_size),
         batch_size = coalesce($3, batch_size),
         lease_ms = coalesce($4, lease_ms),
         updated_at = clock_timestamp()
       WHERE name = $1 RETURNING *)
     SELECT ${COLUMNS} FROM changed`,
    [name, changes.defaultPageSize ?? null, changes.batchSize ?? null, changes.leaseMs ?? null],
  );
  return row ? Object.assign(new JobConfig(), row) : null;
}
