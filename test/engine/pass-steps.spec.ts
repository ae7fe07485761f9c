import { afterAll, beforeAll, expect, it } from 'vitest';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// Features add steps to the engine's pass. A step that fails or hangs does not stop the others.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
});
afterAll(() => bildad.close());

const passSteps = () =>
  (bildad.engine as unknown as { bildad: BildadRuntime }).bildad.extensions.passSteps;

it('a step that throws is reported; the other steps run, and jobs start', async () => {
  const calls: string[] = [];
  const offs = [
    passSteps().register('fails', {
      name: 'fails',
      every: 0,
      run: () => Promise.reject(new Error('no')),
    }),
    passSteps().register('works', {
      name: 'works',
      every: 0,
      run: async ({ db, term, deadline }) => {
        await db.query('SELECT 1');
        calls.push(`${term} ${deadline > performance.now()}`);
      },
    }),
  ];
  const failed = bildad.next('engine.error');
  const passed = bildad.next('engine.pass');
  const { jobRunIdentifier } = await bildad.engine.enqueueJob(SimpleJob, {});
  expect((await bildad.engine.runJobEngine()).start).toHaveLength(1);
  expect(await failed).toMatchObject({
    doing: 'running a pass of the engine (fails)',
    error: { message: 'no' },
  });
  expect(calls).toEqual([`${(await passed).term} true`]);
  for (const off of offs) off();
  await bildad.engine.runJobEngine();
  expect(calls).toHaveLength(1);
  await bildad.engine.waitForJob(jobRunIdentifier);
});

it('a step that hangs does not hold the guard, and does not run twice', async () => {
  await bildad.jobs.updateJobConfig({ leaseMs: 1_000 });
  await bildad.engine.runJobEngine();
  let runs = 0;
  let release = () => {};
  const off = passSteps().register('hangs', {
    name: 'hangs',
    every: 0,
    run: () =>
      new Promise<void>((resolve) => {
        runs++;
        release = resolve;
      }),
  });
  const failed = bildad.next('engine.error');
  const { jobRunIdentifier } = await bildad.engine.enqueueJob(SimpleJob, {});
  expect((await bildad.engine.runJobEngine()).start).toHaveLength(1);
  expect((await failed).doing).toBe('running a pass of the engine (hangs)');
  expect(await bildad.jobs.getJobConfig()).toMatchObject({ guardExpiresAt: null });
  await bildad.engine.runJobEngine();
  expect(runs).toBe(1);
  release();
  off();
  await bildad.engine.waitForJob(jobRunIdentifier);
});

it('a step with an interval runs once per interval on all nodes together', async () => {
  const other = await bootApp({ providers: [SimpleJob], database: bildad.database });
  let runs = 0;
  const offs = [bildad, other].map(({ engine }) =>
    (engine as unknown as { bildad: BildadRuntime }).bildad.extensions.passSteps.register('rare', {
      name: 'rare',
      every: 100,
      run: async () => void runs++,
    }),
  );
  await expect
    .poll(async () => {
      await bildad.engine.runJobEngine();
      await other.engine.runJobEngine();
      return runs;
    })
    .toBeGreaterThan(0);
  await bildad.sql(`UPDATE bildad.job_configs SET step_times = '{"rare": "2999-01-01T00:00:00Z"}'`);
  const before = runs;
  for (let pass = 0; pass < 3; pass++) {
    await bildad.engine.runJobEngine();
    await other.engine.runJobEngine();
  }
  expect(runs).toBe(before);
  for (const off of offs) off();
  await other.close();
});
