import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { UnrunnableAlarm } from '../../src/node/unrunnable-jobs.js';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// A node claims what it has handlers for. What nobody has a handler for waits, is to be seen, and somebody is told.

@BildadJob({ code: 'NEWER', maxRetries: 0 })
class NewerJob implements JobHandler {
  runJob(): string {
    return 'by the new version';
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
  const newer = await bootApp({
    providers: [SimpleJob, NewerJob],
    database: bildad.database,
  });
  await newer.close();
});
afterAll(() => bildad.close());

const joined = async () =>
  (
    await bildad.sql<{ code: string }>(
      'SELECT unnest(template_codes) AS code FROM bildad.job_nodes WHERE ended_at IS NULL',
    )
  ).map(({ code }) => code);
const age = () =>
  bildad.sql(
    `UPDATE bildad.job_queue_entries SET run_at = now() - interval '2 min' WHERE NOT scheduled`,
  );

it('jobs without a living node, or with an inactive template, are listed by code and stay', async () => {
  const { engine, jobs, sql } = bildad;
  // Whether a node lives is in its row once it has joined.
  await expect.poll(joined).toEqual(['SIMPLE']);
  const [first] = await engine.enqueueJobs('NEWER', [{}, {}, {}]);
  await engine.enqueueJob('NEWER', {}, { delay: '1h' });
  const simple = await engine.enqueueJob(SimpleJob, {});
  expect(await jobs.listUnrunnableJobs()).toEqual([]);
  await age();
  const waiting = {
    code: 'NEWER',
    active: true,
    count: 3,
    oldestDueAt: expect.any(Date) as Date,
  };
  expect(await jobs.listUnrunnableJobs()).toEqual([waiting]);
  await sql(`UPDATE bildad.job_templates SET active = false WHERE code = 'SIMPLE'`);
  expect(await jobs.listUnrunnableJobs()).toEqual([
    waiting,
    { ...waiting, code: 'SIMPLE', active: false, count: 1 },
  ]);
  expect(await jobs.listUnrunnableJobs({ olderThan: '1h' })).toEqual([]);
  await sql(`UPDATE bildad.job_templates SET active = true WHERE code = 'SIMPLE'`);
  await engine.runJobEngine();
  await engine.waitForJob(simple.jobRunIdentifier);
  expect(await jobs.getJobQueueEntryForIdentifier(first!.jobRunIdentifier)).toMatchObject({
    status: 'AVAILABLE',
    retry: 0,
  });
});

it('is told once a minute by one node of all', async () => {
  const { store, events } = (bildad.engine as unknown as { bildad: BildadRuntime }).bildad;
  const told: unknown[] = [];
  bildad.events.on('engine.unrunnable', (jobs) => told.push(jobs));
  let now = 0;
  const alarms = [1, 2].map(() => new UnrunnableAlarm(store, events, 'default', () => now));
  const run = async () => {
    for (const alarm of alarms) await alarm.run();
  };
  await run();
  expect(told).toEqual([]);
  now = 60_000;
  await run();
  expect(told).toMatchObject([{ code: 'NEWER', active: true, count: 3 }]);
  now = 120_000;
  // A minute has passed here; not by the database's clock, which decides.
  await run();
  expect(told).toHaveLength(1);
  await bildad.sql(`UPDATE bildad.job_configs SET alarmed_at = alarmed_at - interval '1 min'`);
  now = 180_000;
  await run();
  expect(told).toHaveLength(2);
});

it('they run as soon as a node can', async () => {
  const { jobs, sql, database } = bildad;
  const newer = await bootApp({ providers: [NewerJob], database });
  await newer.engine.runJobEngine();
  await expect
    .poll(() =>
      sql(`SELECT output FROM bildad.job_runs WHERE status = 'DONE' AND output IS NOT NULL`),
    )
    .toHaveLength(3);
  expect(await jobs.listUnrunnableJobs({ olderThan: 0 })).toEqual([]);
  await newer.close();
});
