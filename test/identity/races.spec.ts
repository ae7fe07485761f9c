import { once } from 'node:events';
import type { EnqueueOptions, UniqueOptions } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { KeyedAnswer, KeyedOrder } from '../fixtures/keyed-enqueuer.js';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';
import { startWorker, type Worker } from '../support/worker.js';

// 64 callers in eight processes enqueue with one key at once.

const PROCESSES = 8;
const CALLERS = 8;

let bildad: TestApp;
let workers: Worker[];
let key = '';
let keys = 0;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob, SimpleJob] });
  workers = await Promise.all(
    Array.from({ length: PROCESSES }, () => startWorker(bildad.database.url, {}, 'keyed-enqueuer')),
  );
}, 90_000);
beforeEach(async () => {
  key = `raced ${keys++}`;
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
});
afterAll(async () => {
  await Promise.all(workers.map((worker) => worker.kill()));
  await bildad.close();
});

type Enqueued = Extract<KeyedAnswer, { entry: unknown }>;

/** The answers of all 64 callers. The number of a caller is in its context. */
async function race(
  optionsOf: (n: number) => EnqueueOptions,
  code = 'GATED',
): Promise<KeyedAnswer[]> {
  const answers = await Promise.all(
    workers.map(async ({ process }, index) => {
      const numbers = Array.from({ length: CALLERS }, (_none, caller) => index * CALLERS + caller);
      const answer = once(process, 'message') as Promise<[KeyedAnswer[]]>;
      process.send({
        code,
        contexts: numbers.map((n) => ({ name: `caller ${n}` })),
        options: numbers.map(optionsOf),
      } satisfies KeyedOrder);
      return (await answer)[0];
    }),
  );
  return answers.flat();
}

const unique = (terms: Omit<UniqueOptions, 'key'> = {}) => ({
  unique: { key, ...terms },
});

/** Checks that all answers are about one job and that one caller inserted it. */
function oneJob(answers: KeyedAnswer[]): Enqueued[] {
  const enqueued = answers.filter((answer): answer is Enqueued => 'entry' in answer);
  expect(enqueued).toHaveLength(PROCESSES * CALLERS);
  expect(new Set(enqueued.map(({ entry }) => entry.id)).size).toBe(1);
  expect(enqueued.filter(({ deduplicated }) => !deduplicated)).toHaveLength(1);
  return enqueued;
}

/** The entries with the last change: several if they changed in the same millisecond. */
function lastOf(enqueued: Enqueued[]) {
  const changed = enqueued.map(({ entry }) => entry).filter(({ status }) => status === 'AVAILABLE');
  const at = changed.map(({ updatedAt }) => String(updatedAt)).toSorted();
  return changed.filter(({ updatedAt }) => String(updatedAt) === at.at(-1));
}
const contextsOf = (entries: Enqueued['entry'][]) => entries.map(({ jobContext }) => jobContext);

async function only() {
  const entries = await bildad.jobs.listAllJobsInTheQueue();
  expect(entries).toHaveLength(1);
  return entries[0]!;
}

/** Runs passes until the job starts: a pass skips an entry that a caller has locked. */
async function start() {
  const arrival = GatedJob.arrival();
  const state = { started: false };
  void arrival.then(() => (state.started = true));
  while (!state.started) await bildad.engine.runJobEngine();
  return arrival;
}

describe.each(['new', 'used before'])('a key that is %s', (state) => {
  beforeEach(async () => {
    if (state === 'new') return;
    const keys = [unique(), { debounce: { key, wait: 0 } }, { throttle: { key, every: 1 } }];
    for (const options of keys)
      for (const code of ['GATED', 'SIMPLE'])
        await bildad.engine.cancelJob(await bildad.engine.enqueueJob(code, {}, options));
  });

  it("'ignore': one entry is inserted, and 63 callers receive it as a duplicate", async () => {
    oneJob(await race(() => unique()));
    expect((await only()).jobContext).toMatchObject({
      name: expect.stringMatching(/^caller/),
    });
  });

  it("'throw': one entry is inserted, and 63 callers receive an error", async () => {
    const answers = await race(() => unique({ onConflict: 'throw' }));
    expect(answers.filter((answer) => 'entry' in answer)).toHaveLength(1);
    expect(
      answers.filter((answer) => 'code' in answer && answer.code === 'DUPLICATE_JOB'),
    ).toHaveLength(63);
    await only();
  });

  it("'replace': one entry remains, as the last caller wants it", async () => {
    const enqueued = oneJob(
      await race((n) => ({
        ...unique({ onConflict: 'replace' }),
        priority: n,
      })),
    );
    const entry = await only();
    expect(contextsOf(lastOf(enqueued))).toContainEqual(entry.jobContext);
    expect(entry.jobContext).toEqual({ name: `caller ${entry.priority}` });
  });

  it("'replace' while the job starts: the job runs with the context of the last replacement", async () => {
    const first = await bildad.engine.enqueueJob('GATED', { name: 'first' }, unique());
    const racing = race(() => unique({ onConflict: 'replace' }));
    const running = await start();
    const answers = (await racing) as Enqueued[];
    expect(answers.every(({ deduplicated }) => deduplicated)).toBe(true);
    const replaced = answers.some(({ entry }) => entry.status === 'AVAILABLE');
    expect(replaced ? contextsOf(lastOf(answers)) : [first.jobContext]).toContainEqual(
      running.context,
    );
    for (const { entry } of answers)
      if (entry.status === 'RUNNING') expect(entry.jobContext).toEqual(running.context);
    running.door.open(null);
    await bildad.engine.waitForJob(first.jobRunIdentifier);
  });

  it("'reschedule': one entry remains, at the time of the last caller", async () => {
    const base = Date.now() + 3_600_000;
    const enqueued = oneJob(
      await race((n) => ({
        ...unique({ onConflict: 'reschedule' }),
        delay: 3_600_000 + n * 60_000,
      })),
    );
    const entry = await only();
    expect(lastOf(enqueued).map(({ runAt }) => String(runAt))).toContain(entry.runAt.toISOString());
    expect(entry.runAt.getTime()).toBeGreaterThanOrEqual(base - 60_000);
  });

  it("'keepLatest' while a job runs: the last enqueued job waits, and runs after the first one ends", async () => {
    await bildad.engine.enqueueJob('GATED', { name: 'first' }, unique());
    const running = await start();
    const enqueued = oneJob(await race(() => unique({ onConflict: 'keepLatest' })));
    expect(await bildad.jobs.listAllJobsInTheQueue()).toHaveLength(2);
    expect((await bildad.engine.runJobEngine()).start).toEqual([]);
    running.door.open(null);
    await bildad.engine.waitForJob(running.job.jobRunIdentifier);
    const latest = await start();
    expect(contextsOf(lastOf(enqueued))).toContainEqual(latest.context);
    latest.door.open(null);
    await bildad.engine.waitForJob(latest.job.jobRunIdentifier);
  });

  it("until: 'started': a waiting job that a caller receives starts after that call", async () => {
    // In each round some callers receive a job that starts at the same time; the next callers insert a new one.
    const enqueued: Enqueued[] = [];
    const started = new Map<string, Date>();
    for (let round = 0; round < 3; round++) {
      const racing = race(() => unique({ until: 'started' }), 'SIMPLE');
      const state = { over: false };
      void racing.then(() => (state.over = true));
      while (!state.over) await bildad.engine.runJobEngine();
      enqueued.push(...((await racing) as Enqueued[]));
    }
    await bildad.engine.runJobEngine();
    await expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue()).toBe(0);
    for (const { job_queue_entry_id, started_at } of await bildad.sql(
      'SELECT job_queue_entry_id::text, started_at FROM bildad.job_runs',
    ))
      started.set(job_queue_entry_id, started_at);
    const waited = enqueued.filter(({ entry }) => entry.status === 'AVAILABLE');
    expect(waited).toHaveLength(3 * PROCESSES * CALLERS);
    for (const { entry } of waited)
      expect(started.get(entry.id)!.getTime()).toBeGreaterThanOrEqual(
        Date.parse(String(entry.insertedAt)),
      );
    const added = enqueued.filter(({ deduplicated }) => !deduplicated);
    expect(new Set(added.map(({ entry }) => entry.id)).size).toBe(added.length);
  });

  it('debounce: one entry remains, with the context of the last caller', async () => {
    const enqueued = oneJob(await race(() => ({ debounce: { key, wait: '1h' } })));
    expect(contextsOf(lastOf(enqueued))).toContainEqual((await only()).jobContext);
  });

  it('throttle: one entry is inserted', async () => {
    oneJob(await race(() => ({ throttle: { key, every: '1h' } })));
    await only();
  });
});

it('processes that are killed during an enqueue leave no key without a holder and none with two', async () => {
  for (const { process } of workers)
    process.send({
      code: 'GATED',
      contexts: Array.from({ length: CALLERS }, (_none, n) => ({
        name: `caller ${n}`,
      })),
      options: unique({ until: 'started', onConflict: 'keepLatest' }),
      forever: true,
    } satisfies KeyedOrder);
  for (const worker of workers) {
    // The worker is enqueueing, and is killed at a different point each time.
    await once(worker.process, 'message');
    await worker.kill();
    const entry = await bildad.engine.enqueueJob('GATED', {}, unique());
    expect((await only()).id).toBe(entry.id);
  }
});
