import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// find_elixir_process: the process of a run on this node, or null when the run is not running or
// runs on another node. No deviation from upstream.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob, SimpleJob] });
});
afterAll(() => bildad.close());

it('findJobProcess finds the process of a run only on the node that runs it', async () => {
  const { engine } = bildad;
  const other = await bootApp({ database: bildad.database });
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { job, door } = await GatedJob.arrival();
  const process = engine.findJobProcess(run)!;
  expect(process).toMatchObject({
    name: run.jobProcessName,
    jobRunId: run.id,
    jobRunIdentifier: run.jobRunIdentifier,
    isStopping: false,
    isSettled: false,
  });
  expect(process.signal).toBe(job.signal);
  // A host may parse bigints as numbers.
  const id = Number(run.id) as unknown as string;
  expect(engine.findJobProcess({ id })).toBe(process);
  expect(other.engine.findJobProcess(run)).toBeNull();
  const waiting = engine.waitForJob(run.jobRunIdentifier);
  door.open(null);
  await waiting;
  await process.settled;
  await expect.poll(() => engine.findJobProcess(run)).toBeNull();
  await other.close();
});

it('the processes of one job have different names', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(
    SimpleJob,
    { fail: 'twice' },
    { jobRunIdentifier: 'named', maxRetries: 1 },
  );
  const names: string[] = [];
  for (let run = 0; run < 2; run++) {
    const finished = bildad.next('run.finished');
    names.push((await engine.runJob(entry)).jobProcessName);
    await finished;
  }
  expect(new Set(names).size).toBe(2);
  expect(names.every((name) => name.includes('named'))).toBe(true);
});

it('findJobProcess returns null for an unknown run', () => {
  expect(bildad.engine.findJobProcess({ id: '999999' })).toBeNull();
});
