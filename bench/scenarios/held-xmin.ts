import pg from 'pg';
import { waiting } from '../fill.js';
import { percentile } from '../statistics.js';
import type { Sample, Scenario } from './scenario.js';

const CLAIMS = 15;
const ROWS = 100;
const thousands = (rows: number) => rows.toLocaleString('en');

export const heldXmin: Scenario = {
  name: 'heldXmin',
  title: 'Claims while a long transaction keeps dead rows',
  notes: `Milliseconds of a claim of ${ROWS}, p50 of ${CLAIMS}, of what ended jobs leave in front of the queue while the oldest transaction is older than they are: from the head, as the first claim of each pass looks, and behind the last claim, as those between passes do. Then after that transaction is over and the table is vacuumed.`,
  quickSeconds: 0,
  mostRounds: 1,
  columns: ({ deadRows }) => [
    ...deadRows.flatMap((rows) => [
      {
        key: `head ${rows}`,
        title: `${thousands(rows)} dead, head`,
        digits: 2,
      },
      { key: `behind ${rows}`, title: 'behind', digits: 2 },
    ]),
    { key: 'after', title: 'vacuumed, head', digits: 2 },
  ],
  contenders: () => ['bildad'],
  run(stages, contender, { deadRows }) {
    const jobs = Math.max(...deadRows) + 10 * ROWS;
    const setting = { jobs, sql: waiting(jobs), copy: 'in bulk' as const };
    return stages.on(contender, setting, async ({ url }) => {
      const holder = await connected(url);
      const claimer = await connected(url);
      try {
        return await measure(holder, claimer, deadRows);
      } finally {
        await holder.end();
        await claimer.end();
      }
    });
  },
};

async function measure(holder: pg.Client, claimer: pg.Client, deadRows: number[]): Promise<Sample> {
  const sample: Sample = {};
  await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
  let dead = 0;
  for (const rows of deadRows) {
    await claimer.query(
      `DELETE FROM bildad.job_queue_entries WHERE id IN
         (SELECT id FROM bildad.job_queue_entries ORDER BY priority, id LIMIT $1)`,
      [rows - dead],
    );
    dead = rows;
    const { rows: front } = await claimer.query<{
      priority: number;
      id: string;
    }>('SELECT priority, id - 1 AS id FROM bildad.job_queue_entries ORDER BY priority, id LIMIT 1');
    sample[`head ${rows}`] = await claims(claimer, null);
    sample[`behind ${rows}`] = await claims(claimer, front[0]!);
  }
  await holder.query('COMMIT');
  await claimer.query('VACUUM bildad.job_queue_entries');
  sample['after'] = await claims(claimer, null);
  return sample;
}

/** Each is taken back. */
async function claims(
  client: pg.Client,
  after: { priority: number; id: string } | null,
): Promise<number> {
  const times: number[] = [];
  for (let claim = 0; claim < CLAIMS; claim++) {
    await client.query('BEGIN');
    const began = performance.now();
    const { rows } = await client.query(
      `SELECT * FROM bildad.claim_job_queue_entries ('bench', 15000, '{NOOP}', ${ROWS}, $1, $2, true)`,
      [after?.priority ?? null, after?.id ?? null],
    );
    times.push(performance.now() - began);
    await client.query('ROLLBACK');
    if (rows.length !== ROWS) throw new Error(`claimed ${rows.length}`);
  }
  return percentile(times, 0.5);
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  await client.connect();
  return client;
}
