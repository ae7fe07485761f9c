import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// Facts about running processes, on this node and on others, and kills from other nodes.

let bildad: IsolatedApp;
let elsewhere: TestApp;

beforeAll(async () => {
  bildad = await bootIsolated();
  await bildad.jobs.updateJobConfig({ leaseMs: 1_500 });
  elsewhere = await bootApp({
    database: bildad.database,
    options: { role: 'producer' },
  });
});
afterAll(async () => {
  await elsewhere.close();
  await bildad.close();
});

describe.each(['THREAD', 'PROCESS'])('%s', (code) => {
  it('a blocked process is inspected and killed from another node', async () => {
    const { jobRunId } = await bildad.begin(code, 'spin');
    const run = { id: jobRunId };
    await expect
      .poll(async () => (await bildad.jobs.inspectJobProcess(run))!.cpuMs)
      .toBeGreaterThan(500);
    const here = (await bildad.jobs.inspectJobProcess(run))!;
    expect(here).toMatchObject({
      jobRunId,
      isolation: code.toLowerCase(),
      progress: null,
      stopping: false,
      abandoned: false,
    });
    expect(here.pid === process.pid).toBe(code === 'THREAD');
    expect(here.threadId! > 0).toBe(code === 'THREAD');
    await expect
      .poll(() => elsewhere.jobs.inspectJobProcess(run))
      .toMatchObject({
        jobRunId,
        pid: here.pid,
        threadId: here.threadId,
        startedAt: here.startedAt,
      });
    await expect
      .poll(async () => (await elsewhere.jobs.inspectJobProcess(run))!.eventLoopLagMs)
      .toBeGreaterThan(500);
    expect(await elsewhere.engine.killJob(run)).toBeNull();
    await expect.poll(() => bildad.engine.findJobProcess(run)).toBeNull();
    await expect.poll(() => elsewhere.jobs.inspectJobProcess(run)).toBeNull();
  });
});

it('an inline handler that ignores a kill is listed as abandoned until it ends', async () => {
  const { jobRunId } = await bildad.begin('INLINE', 'sleepLong');
  const run = { id: jobRunId };
  const ended = bildad.next('process.ended');
  expect(await bildad.engine.killJob(run)).toMatchObject({ reason: 'Killed' });
  expect(await bildad.jobs.inspectJobProcess(run)).toMatchObject({
    isolation: 'inline',
    pid: process.pid,
    threadId: 0,
    stopping: true,
    abandoned: true,
  });
  await expect.poll(async () => (await bildad.jobs.listNodes())[0]!.abandoned).toBe(1);
  await ended;
  expect(await bildad.jobs.inspectJobProcess(run)).toBeNull();
});

it('another node reads the progress of a process', async () => {
  const { jobRunId } = await bildad.begin('THREAD', 'halfway');
  const run = { id: jobRunId };
  const half = {
    fraction: 0.5,
    message: 'half way',
    at: expect.any(Date) as Date,
  };
  await expect
    .poll(async () => (await elsewhere.jobs.inspectJobProcess(run))?.progress)
    .toEqual(half);
  await bildad.engine.killJob(run);
});
