import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { StepTimes } from '../../src/node/pass.sql.js';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// A node claims jobs that it has handlers for. Jobs without a handler on any node wait, are listed and are reported.

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
const makeOverdue = () =>
  bildad.sql(
    `UPDATE bildad.job_queue_entries SET run_at = now() - interval '2 min' WHERE NOT scheduled`,
  );

it('jobs without a live handler or with an inactive template are listed by code and stay queued', async () => {
  const { engine, jobs, sql } = bildad;
  // The list needs the row of the node, which exists after it has joined.
  await expect.poll(joined).toEqual(['SIMPLE']);
  const [first] = await engine.enqueueJobs('NEWER', [{}, {}, {}]);
  await engine.enqueueJob('NEWER', {}, { delay: '1h' });
  const simple = await engine.enqueueJob(SimpleJob, {});
  expect(await jobs.listUnrunnableJobs()).toEqual([]);
  await makeOverdue();
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

it('unrunnable jobs are reported once a minute by one node', async () => {
  const { store, events, node, settings, extensions } = (
    bildad.engine as unknown as { bildad: BildadRuntime }
  ).bildad;
  const reported: unknown[] = [];
  bildad.events.on('engine.unrunnable', (jobs) => reported.push(jobs));
  const step = extensions.passSteps.active!.find(({ name }) => name === 'report unrunnable jobs')!;
  let now = 0;
  const nodes = [1, 2].map(() => new StepTimes({ store, events, node, settings }, () => now));
  const passOfEach = async () => {
    for (const times of nodes)
      for (const due of await times.claimDueSteps([step]))
        await due.run({ db: store.db, term: '1', deadline: Infinity });
  };
  await passOfEach();
  expect(reported).toEqual([]);
  now = 60_000;
  await passOfEach();
  expect(reported).toMatchObject([{ code: 'NEWER', active: true, count: 3 }]);
  now = 120_000;
  // A minute has passed on this node, but not on the database's clock, which decides.
  await passOfEach();
  expect(reported).toHaveLength(1);
  await bildad.sql("UPDATE bildad.job_configs SET step_times = '{}'");
  now = 180_000;
  await passOfEach();
  expect(reported).toHaveLength(2);
});

it('unrunnable jobs run as soon as a node has a handler', async () => {
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
