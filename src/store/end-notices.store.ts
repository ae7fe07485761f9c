import type { PgClient } from './connection/driver.js';
import { asRun, runColumns } from './columns.js';
import type { JobRun } from './entities/index.js';
import { rows, type Queryable, type Tables } from './tables.js';

/** Apart from what wakes nodes: those of an older version would look for work at each of these. */
const channelOf = ({ schema }: Tables) => `nestjs_bildad_ends:${schema}`;
/** PostgreSQL takes 8,000 bytes, less one. */
const MOST_BYTES = 7_900;

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

/**
 * A statement, and so a commit, of its own: in the transaction of an end it would make all of them commit one after
 * another. It writes nothing, and waits for no disk.
 */
export async function notifyEnds(
  db: Queryable,
  tables: Tables,
  notice: EndNotice,
): Promise<void> {
  await rows(
    db,
    `SELECT set_config('synchronous_commit', 'off', true), count(pg_notify($1, payload)) FROM unnest($2::text[]) AS payload`,
    [channelOf(tables), payloads(notice)],
  );
}

function payloads({ identifiers, ...notice }: EndNotice): string[] {
  const texts: string[] = [];
  let part: string[] = [];
  let bytes = 0;
  const finish = () =>
    texts.push(JSON.stringify({ ...notice, identifiers: part }));
  for (const identifier of identifiers) {
    const size = Buffer.byteLength(JSON.stringify(identifier)) + 1;
    if (bytes + size > MOST_BYTES - 300 && part.length > 0) {
      finish();
      part = [];
      bytes = 0;
    }
    part.push(identifier);
    bytes += size;
  }
  finish();
  return texts;
}

export async function listenToEnds(
  client: PgClient,
  tables: Tables,
): Promise<void> {
  await client.query(`LISTEN "${channelOf(tables)}"`);
}

/** Null where it is none: of another channel, or from who knows what. */
export function readNotice(
  tables: Tables,
  { channel, payload }: { channel?: string; payload?: string },
): EndNotice | null {
  if (channel !== channelOf(tables) || !payload) return null;
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

export const isOfEnds = (tables: Tables, channel: string | undefined) =>
  channel === channelOf(tables);

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
