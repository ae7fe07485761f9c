import { asRun, runColumns } from '../database/columns.js';
import type { JobRun } from '../database/entities/index.js';
import { channelsOf, notifyAll } from './notify.sql.js';
import { packed } from './payloads.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';

const KINDS = ['awaited', 'over', 'watched', 'changed'] as const;

/**
 * `awaited`: somebody waits for the ends of these jobs; `over`: they have ended. `watched`: somebody watches them;
 * `changed`: there is something new to be seen of them. Nodes of 0.5 take no notice of the latter two.
 */
export interface EndNotice {
  kind: (typeof KINDS)[number];
  /** The node that says so. */
  from: string;
  identifiers: string[];
}

export async function notifyEnds(
  db: Queryable,
  tables: Tables,
  { identifiers, ...head }: EndNotice,
): Promise<void> {
  const things = identifiers.map((identifier) => JSON.stringify(identifier));
  const { payloads } = packed(head, 'identifiers', things);
  await notifyAll(db, channelsOf(tables).ends, payloads);
}

/** Null where it is none: anybody may tell anything. */
export function readNotice(payload: string | undefined): EndNotice | null {
  if (!payload) return null;
  try {
    const said = JSON.parse(payload) as Partial<EndNotice>;
    const fine =
      KINDS.includes(said.kind!) &&
      typeof said.from === 'string' &&
      Array.isArray(said.identifiers);
    return fine ? (said as EndNotice) : null;
  } catch {
    return null;
  }
}

/** What is known of a job: `queued`, or the newest of its runs; null where it has neither. */
export type JobState = 'queued' | JobRun | null;

/** In one look: an entry goes in the same statement that ends its last run. */
export async function jobStates(
  db: Queryable,
  { entries, runs }: Tables,
  identifiers: string[],
): Promise<JobState[]> {
  const found = await rows<{ ord: number; queued: boolean; id: string | null }>(
    db,
    `SELECT i.ord::int, i.queued, r.* FROM (
       SELECT ord, identifier, EXISTS (SELECT FROM ${entries} e WHERE e.job_run_identifier = identifier) AS queued
       FROM unnest($1::text[]) WITH ORDINALITY AS asked (identifier, ord)
     ) i LEFT JOIN LATERAL (
       SELECT ${runColumns('r')} FROM ${runs} r
       WHERE r.job_run_identifier = i.identifier AND NOT i.queued ORDER BY r.retry DESC LIMIT 1
     ) r ON true ORDER BY i.ord`,
    [identifiers],
  );
  return found.map(({ ord: _ord, queued, ...run }) => {
    if (queued) return 'queued';
    return run.id === null ? null : asRun(run);
  });
}
