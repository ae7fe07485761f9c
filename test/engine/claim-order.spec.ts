import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { claimNext } from '../../src/lifecycle/claim/claim.sql.js';
import { tablesOf } from '../../src/database/tables.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// Claims between passes start at the resume point of the last claim. They still see more urgent entries.
// A full scan sees entries that returned to the queue.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
});
afterAll(() => bildad.close());
beforeEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs'));

const enqueue = (name: string, priority: number) =>
  bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: name, priority });
async function claim(limit: number, after: { id: string; priority: number } | null) {
  const { claims, last } = await claimNext(
    bildad.dataSource,
    tablesOf('bildad'),
    { nodeId: 'me', leaseMs: 60_000 },
    ['SIMPLE'],
    limit,
    { after },
  );
  return { names: claims.map(({ claimed }) => claimed.jobRunIdentifier), last };
}

it('a claim takes more urgent entries first, then continues after the last one', async () => {
  for (const name of ['a', 'b', 'c', 'd']) await enqueue(name, 5);
  await enqueue('later', 7);
  const first = await claim(2, null);
  expect(first.names).toEqual(['a', 'b']);
  await enqueue('urgent', 1);
  await enqueue('e', 5);
  expect((await claim(3, first.last)).names).toEqual(['urgent', 'c', 'd']);
  expect((await claim(9, first.last)).names).toEqual(['e', 'later']);
});

it('an entry that returns to the queue is before the resume point, and a full scan claims it', async () => {
  for (const name of ['a', 'b', 'c']) await enqueue(name, 5);
  const { last } = await claim(2, null);
  await bildad.engine.stopJobInQueue((await bildad.jobs.getJobQueueEntryForIdentifier('a'))!);
  expect((await claim(9, last)).names).toEqual(['c']);
  expect((await claim(9, null)).names).toEqual(['a']);
});

it('run ids follow the order in which runs start', async () => {
  await enqueue('second', 5);
  await enqueue('third', 5);
  await enqueue('first', 1);
  await claim(3, null);
  expect(
    await bildad.sql('SELECT job_run_identifier AS name FROM bildad.job_runs ORDER BY id'),
  ).toEqual([{ name: 'first' }, { name: 'second' }, { name: 'third' }]);
});
