import { readFileSync } from 'node:fs';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// Isolated handlers have their class, context and dependencies, and return outputs and errors.

let bildad: IsolatedApp;
const ticks = join(mkdtempSync(join(tmpdir(), 'bildad-')), 'ticks');

beforeAll(async () => {
  process.env['ISOLATED_TICKS'] = ticks;
  bildad = await bootIsolated();
});
afterAll(() => bildad.close());

describe.each(['THREAD', 'PROCESS'])('%s', (code) => {
  it('has its class, its validated context and its injected providers', async () => {
    expect(await bildad.act(code, 'greet', 'Nest')).toMatchObject({
      result: 'SUCCEEDED',
      output: 'hello Nest',
    });
    expect((await bildad.act(code, 'session')).output).toMatch(/^bildad#\d+$/);
  });

  it('runs outside the node process, always in the same warm host', async () => {
    const first = (await bildad.act(code, 'where')).output;
    expect(first).not.toEqual({ pid: process.pid, threadId: 0 });
    expect((await bildad.act(code, 'where')).output).toEqual(first);
  });

  it('returns progress, log lines and output unchanged', async () => {
    const progress = bildad.next('run.progress');
    expect((await bildad.act(code, 'reportThenReturn')).output).toEqual({
      text: 'naïve',
      list: [1, null],
      at: '1970-01-01T00:00:00.000Z',
      attempt: 1,
      code,
    });
    expect(await progress).toMatchObject({
      templateCode: code,
      fraction: 0.5,
      message: 'half way',
    });
  });

  it('stores a marker for an output without JSON form, and the job succeeds', async () => {
    for (const act of ['big', 'unreadable'] as const)
      expect(await bildad.act(code, act)).toMatchObject({
        result: 'SUCCEEDED',
        output: { $unserializable: expect.any(String) as string },
      });
  });

  it('returns an error with its name, stack, cause and code', async () => {
    const run = await bildad.act(code, 'fail');
    expect(run).toMatchObject({
      result: 'FAILED',
      reason: 'no money',
      error: {
        name: 'PaymentRefused',
        code: 'E_REFUSED',
        cause: { name: 'TypeError', message: 'the cause' },
      },
    });
    expect(JSON.stringify(run.error)).toContain('isolation-app.js');
    expect(await bildad.act(code, 'throwText')).toMatchObject({
      result: 'FAILED',
      reason: 'only a text',
    });
  });

  it('fails the run without its handler if the context is invalid', async () => {
    const entry = await bildad.engine.enqueueJob(code, { act: 'greet' }, { delay: '1h' });
    await bildad.sql(
      `UPDATE bildad.job_queue_entries SET job_context = '{"act":"dance"}', run_at = clock_timestamp() WHERE id = $1`,
      [entry.id],
    );
    expect(await bildad.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      result: 'FAILED',
      error: { name: 'InvalidJobContextError' },
    });
  });

  it('does not attribute the late output of a job to the next one', async () => {
    await bildad.act(code, 'reportOften');
    const reportedRuns: string[] = [];
    const off = bildad.events.on('run.progress', ({ jobRunId }) => reportedRuns.push(jobRunId));
    const next = await bildad.act(code, 'sleep');
    off();
    expect(next.result).toBe('SUCCEEDED');
    expect(reportedRuns).not.toContain(next.id);
  });

  it('can enqueue other jobs', async () => {
    const { output } = await bildad.act(code, 'enqueue');
    expect(await bildad.engine.waitForJob(output as string)).toMatchObject({
      output: 'done',
    });
  });
});

it('timers of the app do not run in hosts', () => {
  const pids = new Set(
    attempt(() => readFileSync(ticks, 'utf8'))
      ?.split('\n')
      .filter(Boolean),
  );
  expect([...pids]).toEqual([]);
});

it('a process that dies between two jobs does not affect the next job', async () => {
  for (let n = 0; n < 5; n++) {
    const { pid } = (await bildad.act('PROCESS', 'where')).output as {
      pid: number;
    };
    const next = bildad.act('PROCESS', 'greet');
    process.kill(pid, 'SIGKILL');
    expect(await next).toMatchObject({ retry: 0, result: 'SUCCEEDED' });
  }
});

it('hosts are not listed as nodes', async () => {
  expect(await bildad.jobs.listNodes()).toHaveLength(1);
});

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
