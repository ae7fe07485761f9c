import { afterAll, beforeAll, expect, it } from 'vitest';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// A feature can restrict claims and add columns to them. Its data is computed once per claim.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
});
afterAll(() => bildad.close());

const startedBy = async () =>
  (await bildad.engine.runJobEngine()).start.map((outcome) =>
    outcome.ok ? outcome.jobRun.jobRunIdentifier : outcome.error,
  );

it('contributions restrict claims until they are unsubscribed', async () => {
  const { extensions } = (bildad.engine as unknown as { bildad: BildadRuntime }).bildad;
  let calls = 0;
  let allowed: number[] | undefined = [1, 2];
  const unsubscribe = [
    extensions.claimContributions.register('priorities', () => {
      calls++;
      return (
        allowed && {
          where: 'e.priority = ANY ($1::int[])',
          columns: { urgency: 'e.priority * $2::int' },
          parameters: [allowed, 10],
        }
      );
    }),
    extensions.claimContributions.register('names', () => ({
      where: 'e.job_run_identifier <> $1',
      parameters: ['closed'],
    })),
  ];
  const columns: unknown[] = [];
  unsubscribe.push(
    extensions.afterClaim.register('test', (claims) => {
      for (const claim of claims) columns.push(claim.columns);
    }),
  );
  const jobs = [
    ['third', 3],
    ['second', 2],
    ['first', 1],
    ['closed', 1],
  ] as const;
  for (const [jobRunIdentifier, priority] of jobs)
    await bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier, priority });

  expect(await startedBy()).toEqual(['first', 'second']);
  expect(columns).toEqual([{ urgency: 10 }, { urgency: 20 }]);
  expect(calls).toBe(1);

  allowed = undefined;
  expect(await startedBy()).toEqual(['third']);
  for (const off of unsubscribe) off();
  expect(await startedBy()).toEqual(['closed']);
  for (const [jobRunIdentifier] of jobs) await bildad.engine.waitForJob(jobRunIdentifier);
});

it('an entry that is due later stays scheduled when its run number is taken', async () => {
  const { dataSource, sql, engine } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'later', delay: '1h' });
  await sql(
    `INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name,
       node_id, job_context, available_at, timeout_at, expires_at)
     VALUES (0, 0, 'later', 0, '', '', '{}', now(), now() + interval '1 h', now() + interval '1 h')`,
  );
  await expect(engine.runJob(entry)).rejects.toThrow('later');
  expect(dataSource.isInitialized).toBe(true);
  expect(
    await sql(
      `SELECT status, scheduled, retry FROM bildad.job_queue_entries WHERE job_run_identifier = 'later'`,
    ),
  ).toEqual([{ status: 'AVAILABLE', scheduled: true, retry: 1 }]);
});
