import { afterEach, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { gate } from '../support/gate.js';
import { GatedJob } from '../support/handlers.js';

// When the answer to a claim is late, the heartbeat finds runs of this node that it does not hold.

let node: TestApp;
beforeEach(async () => {
  node = await bootApp({
    providers: [GatedJob],
    options: { tickInterval: '1h' },
  });
  await node.jobs.updateJobConfig({ leaseMs: 1_000 });
  // This pass reads the new config. A pass that started at the boot may have read the old one.
  await expect.poll(async () => (await node.engine.runJobEngine()).alreadyRunning).toBe(false);
});
afterEach(() => node.close());

it('a claim whose answer is late is not released: its job starts when the answer arrives', async () => {
  const { dataSource, sql } = node;
  const answer = gate();
  const strandedRows: unknown[] = [];
  const query = dataSource.query.bind(dataSource);
  dataSource.query = (async (text, ...rest) => {
    const rows: unknown = await query(text, ...rest);
    if (text.includes('"claim_jobs"') && (rows as unknown[]).length > 0) await answer.opened;
    if (text.includes('stranded')) strandedRows.push(rows);
    return rows;
  }) as typeof dataSource.query;
  await node.engine.enqueueJobs('GATED', [{}]);
  const stranded = () =>
    sql(
      `SELECT FROM bildad.job_runs WHERE status = 'RUNNING' AND expires_at < clock_timestamp() + interval '400 ms'`,
    );
  await expect.poll(stranded, { timeout: 5_000 }).toHaveLength(1);
  const before = strandedRows.length;
  await expect.poll(() => strandedRows.length, { timeout: 5_000 }).toBeGreaterThan(before + 1);
  answer.open();
  const { job, door } = await GatedJob.arrival();
  expect(await sql('SELECT status FROM bildad.job_runs WHERE id = $1', [job.jobRunId])).toEqual([
    { status: 'RUNNING' },
  ]);
  door.open(undefined);
  expect(await node.engine.waitForJob(job.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
});
