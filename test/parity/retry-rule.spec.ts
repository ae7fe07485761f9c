import { BildadConfigError, BildadJob, type BackoffData, type JobHandler } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// The retry rule is the same for failed, timed out, killed and expired runs: the entry is removed
// when retry + 1 > maxRetries, otherwise it is AVAILABLE again. So maxRetries: 3 means at most 4
// runs. Upstream retries at once (backoff: 'none'). Here a retry waits by its backoff, and an
// interrupted run does not use up a retry.

const backoffCalls: { retry: number; error: unknown }[] = [];
let nextBackoff: unknown;

@BildadJob({
  code: 'OWN_BACKOFF',
  backoff: (retry, error) => {
    backoffCalls.push({ retry, error });
    if (nextBackoff instanceof Error) throw nextBackoff;
    return nextBackoff as number;
  },
})
class OwnBackoffJob implements JobHandler<object> {
  runJob(): void {
    throw new RangeError('too far');
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob, GatedJob, OwnBackoffJob] });
});
beforeEach(() => {
  backoffCalls.length = 0;
});
afterAll(() => bildad.close());

/**
 * Runs the entry now, due or not.
 * @returns milliseconds from the end of the run until the next run is due
 */
async function failOnce(
  entry: { id: string; jobRunIdentifier: string },
  app = bildad,
): Promise<number | null> {
  const { engine, jobs } = app;
  const finished = app.next('run.finished');
  const { id } = await engine.runJob(entry);
  await finished;
  const runs = await jobs.listJobRunsForIdentifier(entry.jobRunIdentifier);
  const run = runs.find((one) => one.id === id)!;
  const left = await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier);
  return left && left.runAt.getTime() - run.endedAt!.getTime();
}

/** Tolerance: the times come from the clocks of statements that run a moment apart. */
const around = (ms: number) =>
  expect.toSatisfy((got: number) => got >= ms - 5 && got <= ms + 250, `about ${ms} ms`);

it.each([
  [0, 1],
  [1, 2],
  [3, 4],
])('maxRetries: %i means at most %i runs', async (maxRetries, most) => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, { fail: 'always' }, { maxRetries });
  for (let pass = 0; pass < most + 2; pass++) {
    const finished = bildad.next('run.finished');
    const { start } = await engine.runJobEngine();
    expect(start).toHaveLength(pass < most ? 1 : 0);
    if (pass < most)
      expect(await finished).toMatchObject({
        retry: pass,
        entry: pass < maxRetries ? 'reopened' : 'removed',
      });
  }
  expect(
    (await jobs.listJobRunsForIdentifier(entry.jobRunIdentifier)).map(({ retry, reason }) => ({
      retry,
      reason,
    })),
  ).toEqual(Array.from({ length: most }, (_, retry) => ({ retry, reason: 'always' })));
});

it('a success ends the job, even when retries are left', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  const first = await engine.runJob(entry);
  await GatedJob.arrival();
  await engine.failJob(first, new Error('once'));
  await engine.runJob(entry);
  (await GatedJob.arrival()).door.open('at last');
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    retry: 1,
    result: 'SUCCEEDED',
  });
});

it('failed, timed out, killed and expired runs count alike', async () => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {}, { maxRetries: 3, timeout: '1h' });
  const ends = [
    (run: { id: string }) => engine.failJob(run, new Error('failed')),
    (run: { id: string }) => engine.killJob(run),
    (run: { id: string }) => engine.expireJob(run),
    async (run: { id: string }) => {
      const finished = bildad.next('run.finished');
      await bildad.sql('UPDATE bildad.job_runs SET timeout_at = now() WHERE id = $1', [run.id]);
      await finished;
    },
  ];
  for (const end of ends) {
    const run = await engine.runJob(entry);
    await GatedJob.arrival();
    await end(run);
  }
  expect(
    (await jobs.listJobRunsForIdentifier(entry.jobRunIdentifier)).map(({ reason }) => reason),
  ).toEqual(['failed', 'Killed', 'Expired', 'Timeout']);
  expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toBeNull();
});

it.each<[BackoffData, number[]]>([
  ['none', [0, 0, 0]],
  ['90s', [90_000, 90_000, 90_000]],
  [1500, [1500, 1500, 1500]],
  [{ type: 'fixed', delay: '2m' }, [120_000, 120_000, 120_000]],
  [{ type: 'exponential', jitter: 0 }, [1000, 2000, 4000]],
  [{ type: 'exponential', delay: '1m', maxDelay: '3m', jitter: 0 }, [60_000, 120_000, 180_000]],
])('backoff %j delays retries by %j ms', async (backoff, waits) => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(
    SimpleJob,
    { fail: 'again' },
    { backoff, maxRetries: waits.length },
  );
  for (const wait of waits) expect(await failOnce(entry)).toEqual(around(wait));
  expect(await failOnce(entry)).toBeNull();
});

it('jitter shortens the backoff by up to its share', async () => {
  const { engine } = bildad;
  const waits: number[] = [];
  for (let round = 0; round < 8; round++) {
    const entry = await engine.enqueueJob(
      SimpleJob,
      { fail: 'again' },
      { backoff: { type: 'exponential', delay: '100s', jitter: 0.2 } },
    );
    waits.push((await failOnce(entry))!);
    await engine.removeJobFromQueue(entry);
  }
  for (const wait of waits) {
    expect(wait).toBeGreaterThanOrEqual(80_000 - 5);
    expect(wait).toBeLessThanOrEqual(100_000 + 250);
  }
  expect(new Set(waits).size).toBeGreaterThan(1);
});

it('a retry does not start before it is due', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(
    SimpleJob,
    { fail: 'again' },
    { backoff: '1h', maxRetries: 1 },
  );
  await failOnce(entry);
  expect((await engine.runJobEngine()).start).toEqual([]);
  await bildad.sql('UPDATE bildad.job_queue_entries SET run_at = now() WHERE id = $1', [entry.id]);
  expect((await engine.runJobEngine()).start).toHaveLength(1);
  await engine.waitForJob(entry.jobRunIdentifier);
});

it('the default backoff is exponential from one second, half of it random', async () => {
  const app = await bootApp({
    providers: [SimpleJob],
    options: { backoff: undefined },
  });
  const entry = await app.engine.enqueueJob(SimpleJob, { fail: 'again' });
  for (const whole of [1000, 2000]) {
    const wait = await failOnce(entry, app);
    expect(wait).toBeGreaterThanOrEqual(whole / 2 - 5);
    expect(wait).toBeLessThanOrEqual(whole + 250);
  }
  await app.close();
});

it('the backoff function of the decorator receives the retry and the error', async () => {
  const { engine } = bildad;
  nextBackoff = '5m';
  const entry = await engine.enqueueJob(OwnBackoffJob, {}, { maxRetries: 2 });
  expect(await failOnce(entry)).toEqual(around(300_000));
  nextBackoff = 1000;
  expect(await failOnce(entry)).toEqual(around(1000));
  expect(await failOnce(entry)).toBeNull();
  expect(backoffCalls).toEqual([
    { retry: 0, error: new RangeError('too far') },
    { retry: 1, error: new RangeError('too far') },
  ]);
});

it("the entry's own backoff overrides the function", async () => {
  const { engine } = bildad;
  nextBackoff = '5m';
  const entry = await engine.enqueueJob(OwnBackoffJob, {}, { backoff: 'none' });
  expect(await failOnce(entry)).toEqual(around(0));
  expect(backoffCalls).toEqual([]);
  await engine.removeJobFromQueue(entry);
});

it.each([[new Error('no idea')], ['soon'], [-1], [NaN], [Promise.resolve(1)]])(
  'a backoff function that throws or returns no duration (%s) is reported, and the run still ends',
  async (returned) => {
    const { engine } = bildad;
    nextBackoff = returned;
    const reported = bildad.next('engine.error');
    const entry = await engine.enqueueJob(OwnBackoffJob, {});
    const wait = await failOnce(entry);
    expect(await reported).toMatchObject({
      doing: expect.stringContaining('OWN_BACKOFF') as string,
      error: returned instanceof Error ? returned : expect.any(BildadConfigError),
    });
    // The built-in default.
    expect(wait).toBeGreaterThanOrEqual(495);
    expect(wait).toBeLessThanOrEqual(1250);
    await engine.removeJobFromQueue(entry);
  },
);

it('the run ends even when an exponential backoff is doubled thousands of times', async () => {
  const { engine } = bildad;
  for (const delay of [0, 1]) {
    const entry = await engine.enqueueJob(
      SimpleJob,
      { fail: 'again' },
      {
        maxRetries: 5000,
        backoff: { type: 'exponential', delay, maxDelay: '1m', jitter: 0 },
      },
    );
    await bildad.sql('UPDATE bildad.job_queue_entries SET retry = 2000 WHERE id = $1', [entry.id]);
    expect(await failOnce(entry)).toEqual(around(delay * 60_000));
    await engine.removeJobFromQueue(entry);
  }
});

it('an interrupted run does not use up a retry and has no backoff', async () => {
  const { database } = bildad;
  const options = { shutdown: { drainTimeout: 0, killGracePeriod: 100 } };
  let node = await bootApp({ database, providers: [GatedJob], options });
  const { jobRunIdentifier } = await node.engine.enqueueJob(
    GatedJob,
    {},
    { maxRetries: 1, backoff: '1h' },
  );
  for (let deploy = 0; deploy < 3; deploy++) {
    expect((await node.engine.runJobEngine()).start).toMatchObject([
      { jobRun: { jobRunIdentifier, retry: deploy } },
    ]);
    await GatedJob.arrival();
    await node.close();
    node = await bootApp({ database, providers: [GatedJob], options });
  }
  const { engine, jobs } = node;
  const entry = (await jobs.getJobQueueEntryForIdentifier(jobRunIdentifier))!;
  expect(entry).toMatchObject({ status: 'AVAILABLE', uncountedRuns: 3 });
  // Two runs are left: the first one and its only retry.
  for (const fate of ['reopened', 'removed']) {
    const finished = node.next('run.finished');
    const run = await engine.runJob(entry);
    await GatedJob.arrival();
    await engine.failJob(run, new Error('its own fault'));
    expect(await finished).toMatchObject({ entry: fate });
  }
  expect(
    (await jobs.listJobRunsForIdentifier(jobRunIdentifier)).map(
      ({ retry, reason }) => `${retry} ${reason}`,
    ),
  ).toEqual([
    '0 Interrupted',
    '1 Interrupted',
    '2 Interrupted',
    '3 its own fault',
    '4 its own fault',
  ]);
  await node.close();
});
