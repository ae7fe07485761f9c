import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { startSample, type Sample } from './sample.js';

// The sample works on an empty folder, then serves HTTP until it is stopped.

let folder: string;
let database: TestDatabase;
let sample: Sample;
let url: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bildad-sample-'));
  database = await createDatabase();
  sample = startSample(['--folder', folder], { DATABASE_URL: database.url });
  const [, address] = await sample.waitForOutput(/Listening on (\S+),/);
  url = address!;
});
afterAll(async () => {
  sample.process.kill('SIGKILL');
  await sample.ended;
  await database.drop();
  await rm(folder, { recursive: true });
});

async function request(path: string, body?: unknown) {
  const answer = await fetch(url + path, {
    // A connection kept alive would be reported as a leak.
    headers: { 'content-type': 'application/json', connection: 'close' },
    ...(body !== undefined && { method: 'POST', body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as any };
}

const flaky = (jobRunIdentifier: string, more = {}) => ({
  code: 'SAMPLE_FLAKY',
  context: { failures: 0 },
  options: { jobRunIdentifier, ...more },
});

it('the server listens on the loopback address only', () => {
  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
});

it('a job is enqueued over HTTP, and its state can be read', async () => {
  const enqueued = await request('/jobs', flaky('mine', { priority: 2 }));
  expect(enqueued).toMatchObject({
    status: 201,
    body: { jobRunIdentifier: 'mine', priority: 2 },
  });
  await vi.waitFor(async () =>
    expect(await request('/jobs/mine')).toMatchObject({
      status: 200,
      body: {
        entry: null,
        runs: [{ result: 'SUCCEEDED', output: { attempts: 1 } }],
      },
    }),
  );
});

it('the queue and the newest runs are listed', async () => {
  const runAt = '2999-01-01T00:00:00.000Z';
  await request('/jobs', flaky('later', { runAt }));
  const { status, body } = await request('/jobs?limit=2');
  expect(status).toBe(200);
  expect(body.queue).toMatchObject([{ jobRunIdentifier: 'later', runAt }]);
  expect(body.runs).toHaveLength(2);
});

it('the updates of a job are streamed as they happen', async () => {
  await request('/jobs', {
    ...flaky('seen'),
    context: { failures: 1 },
  });
  const stream = await fetch(`${url}/jobs/seen/events`, {
    headers: { connection: 'close' },
  });
  expect(stream.headers.get('content-type')).toMatch(/^text\/event-stream/);
  expect(await stream.text()).toMatch(
    /event: end\nid: 1\.2\.\d+\ndata: {.*"result":"SUCCEEDED".*}\n\n$/,
  );
  expect(await request('/jobs/none/events')).toMatchObject({ status: 404 });
});

it('the engine is run over HTTP and the counts are returned', async () => {
  expect(await request('/jobs/engine/run', {})).toEqual({
    status: 200,
    body: {
      start: { okCount: expect.any(Number), errorCount: 0 },
      expire: { okCount: 0, errorCount: 0 },
      alreadyRunning: expect.any(Boolean),
    },
  });
});

it('errors are returned with their status and code', async () => {
  await request('/jobs', flaky('twice'));
  const answers = {
    violations: await request('/jobs', {
      code: 'SAMPLE_FLAKY',
      context: { failures: 'many' },
    }),
    'no context': await request('/jobs', { code: 'SAMPLE_FLAKY' }),
    template: await request('/jobs', { code: 'NO_SUCH', context: {} }),
    duplicate: await request('/jobs', flaky('twice')),
    option: await request('/jobs', flaky('a', { priority: 'high' })),
    manager: await request('/jobs', flaky('b', { manager: {} })),
    body: await request('/jobs', {}),
    page: await request('/jobs?page=first'),
    job: await request('/jobs/none'),
    'NUL in a name': await request('/jobs/%00'),
  };
  expect(answers).toMatchObject({
    violations: {
      status: 422,
      body: {
        code: 'INVALID_JOB_CONTEXT',
        violations: expect.arrayContaining([
          {
            path: 'failures',
            message: 'failures must be an integer number',
          },
        ]),
      },
    },
    'no context': { status: 422 },
    template: { status: 404, body: { code: 'JOB_TEMPLATE_NOT_FOUND' } },
    duplicate: { status: 409, body: { code: 'DUPLICATE_JOB' } },
    option: { status: 400, body: { code: 'BILDAD_CONFIG' } },
    manager: { status: 400 },
    body: { status: 400 },
    page: { status: 400, body: { code: 'BILDAD_CONFIG' } },
    job: { status: 404, body: { code: 'JOB_NOT_FOUND' } },
    'NUL in a name': { status: 404, body: { code: 'JOB_NOT_FOUND' } },
  });
});

it('a busy port is replaced by a free one, and the sample prints it', async () => {
  const other = startSample(['--folder', folder], {
    DATABASE_URL: database.url,
    PORT: new URL(url).port,
  });
  try {
    await other.waitForOutput(/Port \d+ is taken/);
    const [, address] = await other.waitForOutput(/Listening on (\S+),/);
    expect(address).not.toBe(url);
  } finally {
    other.process.kill('SIGINT');
  }
  expect((await other.ended).code).toBe(0);
});

it('the process exits cleanly when it is stopped', async () => {
  sample.process.kill('SIGTERM');
  expect((await sample.ended).code).toBe(0);
  await expect(fetch(url)).rejects.toThrow();
});
