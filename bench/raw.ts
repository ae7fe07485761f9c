/**
 * The limit: Bildad's own schema without an engine. Prepared statements on plain `pg`, claims of 500 by priority
 * and age that write the run row, one connection that claims and one that completes. No validation, no retries, no
 * leases, no timeouts: what remains is what the tables cost.
 */
import pg from 'pg';
import type { Adapter, Payload, Producer, Target } from './adapter.js';
import { adapter as bildad } from './bildad.js';

const BATCH = 500;
const BULK_ROWS = 5000;
/** Claimed batches that may wait for their completion. */
const AHEAD = 3;

const INSERT = {
  name: 'insert',
  text: `INSERT INTO bildad.job_queue_entries (job_template_id, job_run_identifier, timeout_ms, max_retries, job_context)
    SELECT t.id, uuidv7()::text, t.default_timeout_ms, t.default_max_retries, context
    FROM bildad.job_templates t, jsonb_array_elements($1::jsonb) context WHERE t.code = 'NOOP'`,
};

const CLAIM = {
  name: 'claim',
  text: `WITH picked AS MATERIALIZED (
      SELECT id FROM bildad.job_queue_entries WHERE status = 'AVAILABLE' AND NOT scheduled
      ORDER BY priority, id LIMIT ${BATCH} FOR UPDATE SKIP LOCKED
    ), born AS (
      INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name,
        node_id, job_context, available_at, timeout_at, expires_at)
      SELECT job_template_id, id, job_run_identifier, retry, job_run_identifier || '#' || retry, 'raw', job_context,
        run_at, clock_timestamp() + timeout_ms * interval '1 ms', clock_timestamp() + interval '15 s'
      FROM bildad.job_queue_entries WHERE id = ANY (ARRAY(SELECT id FROM picked))
      RETURNING id, job_queue_entry_id, job_context
    ), taken AS (
      UPDATE bildad.job_queue_entries e SET status = 'RUNNING', retry = e.retry + 1, current_job_run_id = born.id
      FROM born WHERE e.id = born.job_queue_entry_id
    ) SELECT id, job_context AS payload FROM born`,
};

const COMPLETE = {
  name: 'complete',
  text: `WITH ended AS (
      UPDATE bildad.job_runs SET status = 'DONE', result = 'SUCCEEDED', ended_at = clock_timestamp()
      WHERE id = ANY ($1::bigint[]) AND status = 'RUNNING' RETURNING id, job_queue_entry_id
    ) DELETE FROM bildad.job_queue_entries e USING ended
      WHERE e.id = ended.job_queue_entry_id AND e.current_job_run_id = ended.id`,
};

export const adapter: Adapter = {
  prepare: (target) => bildad.prepare(target),

  async produce(target) {
    const clients = [await connect(target), await connect(target)] as const;
    return {
      enqueueOne: gather(clients[0]),
      enqueueBulk: (payloads) => bulk(clients, payloads),
    };
  },

  async work(target, onJob) {
    const [claiming, completing] = [await connect(target), await connect(target)];
    const ended: string[][] = [];
    let completion: Promise<void> | undefined;
    const complete = async () => {
      for (let ids = ended.splice(0); ids.length > 0; ids = ended.splice(0))
        await completing.query(COMPLETE, [ids.flat()]);
      completion = undefined;
    };
    const claim = async () => {
      for (;;) {
        const { rows } = await claiming.query<{ id: string; payload: Payload }>(CLAIM);
        for (const { payload } of rows) onJob(payload);
        if (rows.length > 0) ended.push(rows.map(({ id }) => id));
        completion ??= complete();
        if (rows.length === 0 || ended.length >= AHEAD) await completion;
      }
    };
    // Ends with the process, or takes it down.
    void claim();
  },

  unfinished: bildad.unfinished,
};

async function connect({ url }: Target): Promise<pg.Client> {
  const client = new pg.Client(url);
  await client.connect();
  // As the engine's own claim: held to the indexes, whatever the statistics say.
  await client.query(
    'SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET enable_hashjoin = off; SET enable_mergejoin = off',
  );
  return client;
}

/** Calls that are in flight together share one INSERT. */
function gather(client: pg.Client): Producer['enqueueOne'] {
  let waiting: Payload[] = [];
  let next: Promise<unknown> | undefined;
  let current: Promise<unknown> = Promise.resolve();
  const flush = async () => {
    await current;
    const batch = waiting;
    waiting = [];
    next = undefined;
    await (current = client.query(INSERT, [JSON.stringify(batch)]));
  };
  return (payload) => {
    waiting.push(payload);
    return (next ??= flush());
  };
}

async function bulk(clients: readonly pg.Client[], payloads: Payload[]): Promise<void> {
  let from = 0;
  const insert = async (client: pg.Client) => {
    while (from < payloads.length) {
      const part = payloads.slice(from, (from += BULK_ROWS));
      await client.query(INSERT, [JSON.stringify(part)]);
    }
  };
  await Promise.all(clients.map(insert));
}
