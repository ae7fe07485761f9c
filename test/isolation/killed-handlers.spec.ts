import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Act } from '../fixtures/isolation-app.js';
import { isAlive } from '../support/is-alive.js';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// A handler that does not stop is killed, its outcome is stored, and nothing remains.

let bildad: IsolatedApp;
const LONG = { timeout: 60_000 };

beforeAll(async () => {
  bildad = await bootIsolated({ memoryLimit: 256 });
});
afterAll(() => bildad.close());

const expectHealthy = async (code: string) => {
  expect(await bildad.act(code, 'greet')).toMatchObject({ output: 'done' });
  await expect.poll(() => bildad.jobs.listRunningJobRuns()).toHaveLength(0);
  await expect.poll(() => bildad.busySessions()).toBe(0);
};

describe.each(['THREAD', 'PROCESS'])('%s', (code) => {
  it.each<Act>(['spin', 'ignore', 'query'])(
    '%s: is killed and frees its slot',
    LONG,
    async (act) => {
      const { jobRunId } = await bildad.begin(code, act);
      if (act === 'query') await expect.poll(() => bildad.busySessions()).toBe(1);
      const run = await bildad.engine.killJob({ id: jobRunId });
      expect(run).toMatchObject({ result: 'FAILED', reason: 'Killed' });
      expect(bildad.engine.findJobProcess({ id: jobRunId })).toBeNull();
      await expectHealthy(code);
    },
  );

  it('a handler that stops on its signal keeps its host', LONG, async () => {
    const before = (await bildad.act(code, 'where')).output;
    const { jobRunId } = await bildad.begin(code, 'waitForAbort');
    expect(await bildad.engine.killJob({ id: jobRunId })).toMatchObject({
      reason: 'Killed',
    });
    expect((await bildad.act(code, 'where')).output).toEqual(before);
  });

  it.each<[Act, string | RegExp]>([
    ['heap', /memory|SIGABRT|exit code/],
    ['exit', `the ${code.toLowerCase()} that ran the job died: it ended with exit code 3`],
    ['timer', 'thrown in a timer'],
    ['rejection', 'unhandled rejection'],
  ])('%s: fails the job, and the node survives', LONG, async (act, why) => {
    const run = await bildad.act(code, act);
    expect(run.result).toBe('FAILED');
    expect(run.reason).toMatch(why);
    await expectHealthy(code);
  });

  it('work that a job leaves behind does not affect other jobs', LONG, async () => {
    const before = (await bildad.act(code, 'where')).output;
    const reported = bildad.next('engine.error');
    expect(await bildad.act(code, 'throwAfterEnd')).toMatchObject({
      result: 'SUCCEEDED',
    });
    expect(await bildad.act(code, 'sleep')).toMatchObject({
      result: 'SUCCEEDED',
    });
    expect((await reported).doing).toBe(
      `running work that an ended job left behind in its ${code.toLowerCase()}`,
    );
    expect((await bildad.act(code, 'where')).output).not.toEqual(before);
  });
});

it.each(['THREAD', 'PROCESS'])(
  '%s: a handler that blocks for ten seconds is killed',
  LONG,
  async (code) => {
    const { jobRunId } = await bildad.begin(code, 'block');
    expect(await bildad.engine.killJob({ id: jobRunId })).toMatchObject({
      reason: 'Killed',
    });
    expect(bildad.engine.findJobProcess({ id: jobRunId })).toBeNull();
    await expectHealthy(code);
  },
);

it(
  'a thread in a native call is abandoned and keeps its slot until the call returns',
  LONG,
  async () => {
    const { jobRunId } = await bildad.begin('THREAD', 'blockInExec');
    const ended = bildad.next('process.ended');
    expect(await bildad.engine.killJob({ id: jobRunId })).toMatchObject({
      reason: 'Killed',
    });
    expect(bildad.engine.findJobProcess({ id: jobRunId })).not.toBeNull();
    await ended;
    await expectHealthy('THREAD');
  },
);

it.each<[Act, RegExp]>([
  ['buffers', /it needed \d+ MiB of memory; memoryLimit is 256/],
  ['abort', /ended by SIGABRT/],
])('PROCESS: %s ends the process only', LONG, async (act, why) => {
  const run = await bildad.act('PROCESS', act);
  expect(run).toMatchObject({
    result: 'FAILED',
    reason: expect.stringMatching(why) as string,
    error: { name: 'JobHostDiedError' },
  });
  await expectHealthy('PROCESS');
});

it.each(['THREAD', 'PROCESS'])(
  '%s: messages that the app sends to the node are ignored',
  LONG,
  async (code) => {
    expect((await bildad.act(code, 'sendUnknownMessages')).result).toBe('SUCCEEDED');
    await bildad.act(code, 'sleep');
    await expectHealthy(code);
  },
);

it("foreign data on the guardian's pipe is ignored", LONG, async () => {
  expect((await bildad.act('PROCESS', 'writeInvalidReport')).reason).toMatch(
    'it ended with exit code 3',
  );
});

it('the exit of a process is detected although its child holds the channel', LONG, async () => {
  expect((await bildad.act('PROCESS', 'leakPipes')).reason).toMatch('exit code 3');
  await expectHealthy('PROCESS');
});

it('a timeout kills an isolated handler', LONG, async () => {
  const entry = await bildad.engine.enqueueJob('THREAD', { act: 'spin' }, { timeout: '300ms' });
  expect(await bildad.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    reason: 'Timeout',
  });
  await expectHealthy('THREAD');
});

it('a job whose hosts die fails after maxCrashes without a used retry', LONG, async () => {
  const entry = await bildad.engine.enqueueJob('PROCESS', { act: 'exit' }, { maxRetries: 1 });
  await bildad.engine.waitForJob(entry.jobRunIdentifier);
  const runs = await bildad.jobs.listJobRunsForIdentifier(entry.jobRunIdentifier);
  expect(runs).toHaveLength(3);
});

it('child processes end with their process unless they are detached', LONG, async () => {
  const reported = bildad.next('run.progress');
  const { jobRunId } = await bildad.begin('PROCESS', 'spawnChild');
  const child = Number((await reported).message);
  expect(isAlive(child)).toBe(true);
  await bildad.engine.killJob({ id: jobRunId });
  await expect.poll(() => isAlive(child)).toBe(false);
});
