import { endFunction } from '../002-hot-path/end.js';
import type { MigrationStep } from '../step.js';

/**
 * A row for each incarnation of a node, so that who judges over its runs can tell a node that is gone from one
 * whose event loop is stuck, and so that a lost node's runs are charged to those that may have killed it.
 *
 * A job that was aboard when a node was lost (`crashes > 0`) stays out of the ready index: it is `scheduled`
 * for ever, and claimed by a look of its own at an index that is empty as long as no node is lost. So the claim
 * of all others costs what it cost.
 */
export const nodes: MigrationStep = {
  version: 4,
  name: 'Nodes',
  timestamp: 1_764_800_000_000,
  statements: (tables) => [
    `CREATE TABLE ${tables.nodes} (
      id text PRIMARY KEY,
      engine_name text NOT NULL,
      host text NOT NULL,
      pid integer NOT NULL,
      version text NOT NULL,
      template_codes text[] NOT NULL DEFAULT '{}',
      concurrency integer NOT NULL,
      running integer NOT NULL DEFAULT 0,
      event_loop_lag_ms integer NOT NULL DEFAULT 0,
      blocked_since timestamptz,
      rss_bytes bigint NOT NULL DEFAULT 0,
      started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      beat bigint NOT NULL DEFAULT 0,
      beat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      expires_at timestamptz NOT NULL,
      renewed_until timestamptz NOT NULL,
      ended_at timestamptz,
      end_reason text CHECK (end_reason IN ('shutdown', 'fenced', 'lost')),
      CHECK ((ended_at IS NULL) = (end_reason IS NULL))
    ) WITH (fillfactor = 20)`,
    grantAsOn(tables.runs, tables.nodes),
    `ALTER TABLE ${tables.entries} ADD COLUMN IF NOT EXISTS crashes integer NOT NULL DEFAULT 0`,
    `CREATE INDEX job_queue_entries_suspects ON ${tables.entries} (priority, id) WHERE crashes > 0`,
    endFunction(tables),
  ],
};

/** Roles that could use a table before can use the new one: GRANT ... ON ALL TABLES named those of its day only. */
export const grantAsOn = (known: string, fresh: string) => `DO $grant$
  DECLARE given record;
  BEGIN
    FOR given IN
      SELECT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS role, acl.privilege_type AS what
      FROM pg_class c, aclexplode(c.relacl) acl
      WHERE c.oid = '${known}'::regclass AND acl.grantee <> c.relowner
        AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
      EXECUTE format('GRANT %s ON ${fresh} TO %s', given.what, given.role);
    END LOOP;
  END $grant$`;
