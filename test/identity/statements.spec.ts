import type { EnqueueOptions } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { TIMED_STATEMENTS } from '../support/timed-statements.js';
import { SimpleJob } from '../support/handlers.js';

// Only jobs with a key pay for keys.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [SimpleJob],
    options: { notify: false },
  });
  await bildad.engine.enqueueJob(SimpleJob, {});
});
afterAll(() => bildad.close());

/** The function that each statement of an enqueue calls, or the statement's text. */
async function calledBy(work: () => Promise<unknown>): Promise<string[]> {
  const spy = vi.spyOn(bildad.dataSource, 'query');
  try {
    await work();
    return spy.mock.calls
      .map(([sql]) => sql)
      .filter((sql) => !TIMED_STATEMENTS.test(sql))
      .map((sql) => /FROM "bildad"\."(\w+)" \(/.exec(sql)?.[1] ?? sql);
  } finally {
    spy.mockRestore();
  }
}

const enqueue = (options?: EnqueueOptions) =>
  calledBy(() => bildad.engine.enqueueJob(SimpleJob, {}, options));

it('an enqueue without a key is one statement that does not read the key table', async () => {
  expect(await enqueue()).toEqual(['enqueue_jobs']);
  expect(await enqueue({ jobRunIdentifier: 'named' })).toEqual(['enqueue_jobs']);
  const [{ source }] = await bildad.sql(
    `SELECT string_agg(prosrc, '') AS source FROM pg_proc
     WHERE proname IN ('enqueue_jobs', 'claim_jobs', 'finish_job_runs', 'write_late_run_rows')`,
  );
  expect(source).toContain('job_queue_entries');
  expect(source).not.toContain('job_keys');
});

it.each<[string, EnqueueOptions]>([
  ['unique', { unique: { key: 'k', onConflict: 'replace' } }],
  ['debounce', { debounce: { key: 'k', wait: '1h' } }],
  ['throttle', { throttle: { key: 'k', every: '1h' } }],
])(
  'an enqueue with %s is one statement, whether the key is free or taken',
  async (_kind, options) => {
    expect(await enqueue(options)).toEqual(['enqueue_keyed_job']);
    expect(await enqueue(options)).toEqual(['enqueue_keyed_job']);
  },
);

it('the queue table has no trigger and no index for keys', async () => {
  expect(
    await bildad.sql(
      `SELECT tgname FROM pg_trigger WHERE tgrelid = 'bildad.job_queue_entries'::regclass`,
    ),
  ).toEqual([]);
  expect(
    await bildad.sql(
      `SELECT indexname FROM pg_indexes WHERE tablename = 'job_queue_entries' AND indexdef LIKE '%key%' AND indexname NOT LIKE '%_key'`,
    ),
  ).toEqual([]);
});
