import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Act } from '../fixtures/isolation-app.js';
import { isAlive } from '../support/is-alive.js';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// What does not stop is ended, says what became of it, and leaves nothing behind.

let bildad: IsolatedApp;
const LONG = { timeout: 60_000 };

beforeAll(async () => {
  bildad = await bootIsolated({ memoryLimit: 256 });
});
afterAll(() => bildad.close());

const wholeAgain = async (code: string) => {
  expect(await bildad.act(code, 'greet')).toMatchObject({ output: 'done' });
  await expect.poll(() => bildad.jobs.listRunningJobRuns()).toHaveLength(0);
  await expect.poll(() => bildad.busySessions()).toBe(0);
};

describe.each(['THREAD', 'PROCESS'])('%s', (code) => {
  it.each<Act>(['spin', 'ignore', 'query'])(
    '%s: is killed, and its slot is free',
    LONG,
    async (act) => {
      const { jobRunId } = await bildad.begin(code, act);
      if (act === 'query') await expect.poll(() => bildad.busySessions()).toBe(1);
      const run = await bildad.engine.killJob({ id: jobRunId });
      expect(run).toMatchObject({ result: 'FAILED', reason: 'Killed' });
      expect(bildad.engine.findJobProcess({ id: jobRunId })).toBeNull();
      await wholeAgain(code);
    },
  );

  it('a handler that obeys keeps its host', LONG, async () => {
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
  ])('%s: the job fails with it, and the node lives', LONG, async (act, why) => {
    const run = await bildad.act(code, act);
    expect(run.result).toBe('FAILED');
    expect(run.reason).toMatch(why);
    await wholeAgain(code);
  });

  it('what a job leaves behind harms no other', LONG, async () => {
    const before = (await bildad.act(code, 'where')).output;
    const told = bildad.next('engine.error');
    expect(await bildad.act(code, 'throwAfterEnd')).toMatchObject({
      result: 'SUCCEEDED',
    });
    expect(await bildad.act(code, 'sleep')).toMatchObject({
      result: 'SUCCEEDED',
    });
    expect((await told).doing).toBe(`what a job left behind in its ${code.toLowerCase()}`);
    expect((await bildad.act(code, 'where')).output).not.toEqual(before);
  });
});

it.each(['THREAD', 'PROCESS'])('%s: a block of ten seconds is killed', LONG, async (code) => {
  const { jobRunId } = await bildad.begin(code, 'block');
  expect(await bildad.engine.killJob({ id: jobRunId })).toMatchObject({
    reason: 'Killed',
  });
  expect(bildad.engine.findJobProcess({ id: jobRunId })).toBeNull();
  await wholeAgain(code);
});

it(
  'a thread inside a native call is given up, and keeps its slot until that is over',
  LONG,
  async () => {
    const { jobRunId } = await bildad.begin('THREAD', 'blockInExec');
    const ended = bildad.next('process.ended');
    expect(await bildad.engine.killJob({ id: jobRunId })).toMatchObject({
      reason: 'Killed',
    });
    expect(bildad.engine.findJobProcess({ id: jobRunId })).not.toBeNull();
    await ended;
    await wholeAgain('THREAD');
  },
);

it.each<[Act, RegExp]>([
  ['buffers', /it needed \d+ MiB of memory; memoryLimit is 256/],
  ['abort', /ended by SIGABRT/],
])('PROCESS: %s ends it, and nothing else', LONG, async (act, why) => {
  const run = await bildad.act('PROCESS', act);
  expect(run).toMatchObject({
    result: 'FAILED',
    reason: expect.stringMatching(why) as string,
    error: { name: 'JobHostDiedError' },
  });
  await wholeAgain('PROCESS');
});

it.each(['THREAD', 'PROCESS'])(
  '%s: what its app sends to the node by itself is not for us',
  LONG,
  async (code) => {
    expect((await bildad.act(code, 'sendUnknownMessages')).result).toBe('SUCCEEDED');
    await bildad.act(code, 'sleep');
    await wholeAgain(code);
  },
);

it('what is written to the guardian by others is not for us', LONG, async () => {
  expect((await bildad.act('PROCESS', 'writeInvalidReport')).reason).toMatch(
    'it ended with exit code 3',
  );
});

it('its end is seen though somebody it left behind holds its wire', LONG, async () => {
  expect((await bildad.act('PROCESS', 'leakPipes')).reason).toMatch('exit code 3');
  await wholeAgain('PROCESS');
});

it('a timeout ends it as well', LONG, async () => {
  const entry = await bildad.engine.enqueueJob('THREAD', { act: 'spin' }, { timeout: '300ms' });
  expect(await bildad.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    reason: 'Timeout',
  });
  await wholeAgain('THREAD');
});

it('a job whose hosts die fails for good after maxCrashes, and costs no retry', LONG, async () => {
  const entry = await bildad.engine.enqueueJob('PROCESS', { act: 'exit' }, { maxRetries: 1 });
  await bildad.engine.waitForJob(entry.jobRunIdentifier);
  const runs = await bildad.jobs.listJobRunsForIdentifier(entry.jobRunIdentifier);
  expect(runs).toHaveLength(3);
});

it('what it started ends with it, unless that was detached', LONG, async () => {
  const told = bildad.next('run.progress');
  const { jobRunId } = await bildad.begin('PROCESS', 'spawnChild');
  const child = Number((await told).message);
  expect(isAlive(child)).toBe(true);
  await bildad.engine.killJob({ id: jobRunId });
  await expect.poll(() => isAlive(child)).toBe(false);
});
