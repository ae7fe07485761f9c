import pg from 'pg';
import { readLedgers, type Line } from './ledger.js';
import type { Limits } from './settings.js';

/** A run as the engine's tables have it in the end. Times are those of the ledgers. */
export interface RunRow {
  id: string;
  entryId: string;
  identifier: string;
  retry: number;
  status: string;
  result: string | null;
  reason: string | null;
  availableAt: number;
  startedAt: number;
  endedAt: number | null;
  expiresAt: number;
}

/** A change of the guard, in the order in which the row's lock let it happen. */
export interface GuardRow {
  at: number;
  holder: string | null;
  term: number;
  /** It was nobody's before, or its lease was over. */
  wasFree: boolean;
  /** Null when it was let go. */
  expiresAt: number | null;
}

/** All that the checker knows of. */
export interface History {
  lines: Line[];
  runs: RunRow[];
  /** What is left in the queue. */
  entries: { id: string; identifier: string; status: string }[];
  /** What the clients' own transactions wrote. */
  orders: string[];
  guard: GuardRow[];
  /** Each lost node that a job was charged with, and how many that made. */
  charges: { identifier: string; crashes: number }[];
  limits: Limits;
}

/** Every change of the guard, and every charge, is written down by the database itself. */
export const AUDIT = `
  CREATE TABLE lab_orders (id text PRIMARY KEY);
  CREATE TABLE lab_charges (n bigserial, identifier text, crashes integer);
  CREATE FUNCTION lab_charge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO lab_charges (identifier, crashes) VALUES (NEW.job_run_identifier, NEW.crashes);
    RETURN NEW; END $$;
  CREATE TRIGGER lab_charge AFTER UPDATE ON bildad.job_queue_entries FOR EACH ROW
    WHEN (NEW.crashes > OLD.crashes) EXECUTE FUNCTION lab_charge();
  CREATE TABLE lab_guard (n bigserial, at timestamptz, holder text, term bigint, was_free boolean, expires_at timestamptz);
  CREATE FUNCTION lab_audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (NEW.guard_holder, NEW.guard_term, NEW.guard_expires_at) IS DISTINCT FROM (OLD.guard_holder, OLD.guard_term, OLD.guard_expires_at) THEN
      INSERT INTO lab_guard (at, holder, term, was_free, expires_at)
      VALUES (clock_timestamp(), NEW.guard_holder, NEW.guard_term,
              OLD.guard_expires_at IS NULL OR OLD.guard_expires_at <= clock_timestamp(), NEW.guard_expires_at);
    END IF;
    RETURN NEW; END $$;
  CREATE TRIGGER lab_audit AFTER UPDATE ON bildad.job_configs FOR EACH ROW EXECUTE FUNCTION lab_audit()`;

/**
 * Reads the final tables. The database's clock is that of this host: `offset` is what lies between it and
 * the monotonic one of the ledgers.
 */
export async function readHistory(
  url: string,
  folder: string,
  offset: number,
  limits: Limits,
): Promise<History> {
  const client = new pg.Client(url);
  await client.connect();
  const ask = async <T>(sql: string) => (await client.query(sql)).rows as T[];
  const ms = (column: string) => `(extract(epoch FROM ${column}) * 1000)::float8 - ${offset}`;
  try {
    return {
      lines: readLedgers(folder),
      runs: await ask<RunRow>(
        `SELECT id::text, job_queue_entry_id::text AS "entryId", job_run_identifier AS identifier, retry, status, result, reason,
           ${ms('available_at')} AS "availableAt", ${ms('started_at')} AS "startedAt", ${ms('ended_at')} AS "endedAt",
           ${ms('expires_at')} AS "expiresAt"
         FROM bildad.job_runs r ORDER BY r.id`,
      ),
      entries: await ask(
        `SELECT id::text, job_run_identifier AS identifier, status FROM bildad.job_queue_entries e ORDER BY e.id`,
      ),
      orders: (await ask<{ id: string }>('SELECT id FROM lab_orders')).map(({ id }) => id),
      guard: await ask<GuardRow>(
        `SELECT ${ms('at')} AS at, holder, term::float8, was_free AS "wasFree", ${ms('expires_at')} AS "expiresAt"
         FROM lab_guard ORDER BY n`,
      ),
      charges: await ask('SELECT identifier, crashes FROM lab_charges ORDER BY n'),
      limits,
    };
  } finally {
    await client.end();
  }
}
