import { BildadJob, type JobExecution, type JobHandler, type JobRun } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob, type Arrival } from '../support/handlers.js';
import { lockRows } from '../support/lock.js';

// While another transaction locks the row of a run or of its queue entry, that run ends. All other ends of the node are
// written within a second, no outage is reported, and the blocked end is written after the lock is released.

/** Completes its run in its own transaction. */
@BildadJob({ code: 'COMPLETES_ITSELF', maxRetries: 0 })
class CompletesItselfJob implements JobHandler<{ name: string }> {
  static started: (() => void) | undefined;
  static go: Promise<void>;

  async runJob(_context: { name: string }, job: JobExecution): Promise<void> {
    CompletesItselfJob.started!();
    await CompletesItselfJob.go;
    await bildad.dataSource.transaction((manager) => job.complete(manager, 'committed'));
  }
}

let bildad: TestApp;
const outages: string[] = [];
beforeAll(async () => {
  bildad = await bootApp({
    providers: [SimpleJob, GatedJob, CompletesItselfJob],
    options: { tickInterval: 100, queryTimeout: '4s' },
  });
  bildad.events.on('database.lost', ({ error }) => outages.push(String(error)));
});
afterAll(() => bildad.close());
beforeEach(() => {
  outages.length = 0;
});
afterEach(async () => {
  expect(outages).toEqual([]);
  await bildad.sql('DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs');
});

const LOCKS = {
  'its run': ['SELECT FROM bildad.job_runs WHERE id = $1', (run: JobRun) => run.id],
  'its entry': [
    'SELECT FROM bildad.job_queue_entries WHERE id = $1',
    (run: JobRun) => run.jobQueueEntryId,
  ],
} as const;

/** Skips the arrivals of other runs: a stopped job runs again at once. */
async function arrivalOf(run: JobRun): Promise<Arrival> {
  for (;;) {
    const arrival = await GatedJob.arrival();
    if (arrival.job.jobRunId === run.id) return arrival;
  }
}

/** Ends other jobs and expects their ends within a second. */
async function othersEnd(): Promise<void> {
  const begin = performance.now();
  const names = ['succeeds', 'fails', 'is retried'];
  const ends = names.map((name) =>
    bildad.next('run.finished', ({ jobRunIdentifier }) => jobRunIdentifier.startsWith(name)),
  );
  const id = () => Math.random().toString(36);
  const { engine } = bildad;
  await Promise.all([
    engine.enqueueAndRunJob(SimpleJob, {}, { jobRunIdentifier: `succeeds ${id()}` }),
    engine.enqueueAndRunJob(
      SimpleJob,
      { fail: 'so' },
      { jobRunIdentifier: `fails ${id()}`, maxRetries: 0 },
    ),
    engine.enqueueAndRunJob(
      SimpleJob,
      { fail: 'so' },
      { jobRunIdentifier: `is retried ${id()}`, backoff: '1h' },
    ),
  ]);
  await Promise.all(ends);
  expect(performance.now() - begin).toBeLessThan(1_000);
}

type Way = (run: JobRun, arrival: Arrival) => unknown;
const WAYS: Record<string, [outcome: string, end: Way]> = {
  'its handler returns': ['completed', (_run, { door }) => door.open('done')],
  'its handler throws': ['failed', (_run, { door }) => door.open(Promise.reject(new Error('no')))],
  'it is killed': ['killed', (run) => bildad.engine.killJob(run)],
  'it is cancelled': ['cancelled', (run) => bildad.engine.cancelJob({ id: run.jobQueueEntryId })],
  'its entry is stopped': [
    'stopped',
    (run) => bildad.engine.stopJobInQueue({ id: run.jobQueueEntryId }),
  ],
  'completeJob ends it': ['completed', (run) => bildad.engine.completeJob(run, 'by hand')],
  'failJob ends it': ['failed', (run) => bildad.engine.failJob(run, new Error('by hand'))],
  'expireJob ends it': ['expired', (run) => bildad.engine.expireJob(run)],
};

const outcomeOf = async (id: string) => {
  const [row] = await bildad.sql('SELECT outcome FROM bildad.job_runs WHERE id = $1', [id]);
  return row?.outcome as string | null;
};

for (const [lock, [select, idOf]] of Object.entries(LOCKS))
  it.each(Object.entries(WAYS))(
    `other ends do not wait while ${lock} is locked and %s`,
    async (_way, [outcome, end]) => {
      const run = await bildad.engine.enqueueAndRunJob(GatedJob, {}, { backoff: '1h' });
      const arrival = await arrivalOf(run);
      const unlock = await lockRows(bildad, select, [idOf(run)]);
      let ended: Promise<unknown> | undefined;
      try {
        ended = Promise.resolve(end(run, arrival));
        await othersEnd();
        await othersEnd();
        expect(await outcomeOf(run.id)).toBeNull();
      } finally {
        await unlock();
      }
      await ended;
      await expect.poll(() => outcomeOf(run.id)).toBe(outcome);
      arrival.door.open(null);
    },
  );

it.each(Object.entries(LOCKS))(
  'other ends do not wait while %s is locked and it times out',
  async (_lock, [select, idOf]) => {
    const run = await bildad.engine.enqueueAndRunJob(GatedJob, {}, { timeout: 300, backoff: '1h' });
    await arrivalOf(run);
    const unlock = await lockRows(bildad, select, [idOf(run)]);
    try {
      await expect.poll(() => bildad.engine.findJobProcess(run)).toBeNull();
      await othersEnd();
      expect(await outcomeOf(run.id)).toBeNull();
    } finally {
      await unlock();
    }
    await expect.poll(() => outcomeOf(run.id)).toBe('timedOut');
  },
);

it.each(Object.entries(LOCKS))(
  'other ends do not wait while %s is locked and its lease expires',
  async (_lock, [select, idOf]) => {
    const entry = await bildad.engine.enqueueJob(SimpleJob, {}, { delay: '1h' });
    const [run] = await bildad.sql<JobRun>(
      `WITH run AS (
         INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
           job_context, available_at, timeout_at, expires_at)
         SELECT job_template_id, id, job_run_identifier, 0, 'gone', 'gone', '{}', now(), now(), now() - interval '1 s'
         FROM bildad.job_queue_entries WHERE id = $1 RETURNING id, job_queue_entry_id
       ) SELECT id::text, job_queue_entry_id::text AS "jobQueueEntryId" FROM run`,
      [entry.id],
    );
    await bildad.sql(
      `UPDATE bildad.job_queue_entries SET status = 'RUNNING', retry = 1, current_job_run_id = $1 WHERE id = $2`,
      [run!.id, entry.id],
    );
    const unlock = await lockRows(bildad, select, [idOf(run!)]);
    try {
      await othersEnd();
      expect(await bildad.engine.runJobEngine()).toMatchObject({ expire: [] });
      expect(await outcomeOf(run!.id)).toBeNull();
    } finally {
      await unlock();
    }
    await expect.poll(() => outcomeOf(run!.id)).toBe('expired');
  },
);

it('other ends do not wait while the entry of a missed job is locked', async () => {
  const entry = await bildad.engine.enqueueJob(SimpleJob, {}, { delay: '1h', startBefore: '2h' });
  const unlock = await lockRows(bildad, 'SELECT FROM bildad.job_queue_entries WHERE id = $1', [
    entry.id,
  ]);
  const missed = bildad.next('run.finished', ({ outcome }) => outcome === 'missed');
  try {
    await othersEnd();
  } finally {
    await unlock();
  }
  await bildad.sql(`UPDATE bildad.job_queue_entries SET start_before = now() WHERE id = $1`, [
    entry.id,
  ]);
  expect(await outcomeOf((await missed).jobRunId)).toBe('missed');
});

it("other ends do not wait for a handler's transaction that waits for the row of its run", async () => {
  const started = new Promise<void>((resolve) => {
    CompletesItselfJob.started = resolve;
  });
  let go!: () => void;
  CompletesItselfJob.go = new Promise((resolve) => {
    go = resolve;
  });
  const run = await bildad.engine.enqueueAndRunJob(CompletesItselfJob, { name: 'own' });
  await started;
  const unlock = await lockRows(bildad, LOCKS['its run'][0], [run.id]);
  try {
    go();
    await othersEnd();
  } finally {
    await unlock();
  }
  await expect.poll(() => outcomeOf(run.id)).toBe('completed');
});
