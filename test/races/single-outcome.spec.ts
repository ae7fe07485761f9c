import { RunNotActiveError, type JobRun } from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// When two callers end a run at the same moment, exactly one succeeds. The run and the entry have the outcome of the
// winner.

let one: TestApp;
let other: TestApp;
beforeAll(async () => {
  one = await bootApp({ providers: [GatedJob] });
  other = await bootApp({ providers: [GatedJob], database: one.database });
});
afterAll(async () => {
  await other.close();
  await one.close();
});

const ROUNDS = 15;

async function running(): Promise<{ run: JobRun; finishHandler: () => void }> {
  const run = await one.engine.enqueueAndRunJob(GatedJob, {});
  const arrival = await GatedJob.arrival();
  return { run, finishHandler: () => arrival.door.open('done') };
}

/** Checks that the run has one of these ends and its entry the matching state. */
async function expectOneEnd(run: JobRun, reasons: (string | null)[]): Promise<JobRun> {
  const [ended, ...more] = await one.jobs.listJobRunsForIdentifier(run.jobRunIdentifier);
  expect(more).toEqual([]);
  expect(ended).toMatchObject({ status: 'DONE' });
  expect(reasons).toContain(ended!.reason);
  const entry = await one.jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier);
  if (ended!.result === 'SUCCEEDED') expect(entry).toBeNull();
  else
    expect(entry).toMatchObject({
      status: 'AVAILABLE',
      retry: 1,
      currentJobRunId: run.id,
    });
  return ended!;
}

describe('exactly one end takes effect', () => {
  it('kill against complete', async () => {
    const seen = new Set<string | null>();
    for (let round = 0; round < ROUNDS; round++) {
      const { run, finishHandler } = await running();
      const over = one.next('run.finished');
      finishHandler();
      // The handler ends a few microtasks later, so the kill comes before, at and after that end.
      for (let turn = 0; turn < round; turn++) await Promise.resolve();
      const kill = one.engine.killJob(run).then(
        () => 'killed',
        (error: unknown) => error,
      );
      await over;
      const answer = await kill;
      const ended = await expectOneEnd(run, [null, 'Killed']);
      seen.add(ended.reason);
      if (ended.reason === 'Killed') expect(answer).toBe('killed');
      else expect(answer).toBeInstanceOf(RunNotActiveError);
    }
    expect(seen).toEqual(new Set([null, 'Killed']));
  });

  const ends: [string, (app: TestApp, run: JobRun) => Promise<unknown>, string | null][] = [
    ['complete', ({ engine }, run) => engine.completeJob(run), null],
    ['fail', ({ engine }, run) => engine.failJob(run, new Error('by hand')), 'by hand'],
    ['expire', ({ engine }, run) => engine.expireJob(run), 'Expired'],
    ['stop', ({ engine }, run) => engine.stopJobInQueue({ id: run.jobQueueEntryId }), 'Stopped'],
  ];
  for (const [first, endFirst, reason] of ends)
    for (const [second, endOther, otherReason] of ends)
      if (first < second)
        it(`${first} against ${second}, on two nodes`, async () => {
          for (let round = 0; round < ROUNDS; round++) {
            const { run } = await running();
            const answers = await Promise.allSettled([endFirst(one, run), endOther(other, run)]);
            const succeeded = answers.filter(({ status }) => status === 'fulfilled').length;
            const notStopped = answers.filter(
              (answer) => answer.status === 'fulfilled' && answer.value === null,
            ).length;
            expect(succeeded - notStopped).toBe(1);
            for (const answer of answers)
              if (answer.status === 'rejected')
                expect(answer.reason).toBeInstanceOf(RunNotActiveError);
            await expectOneEnd(run, [reason, otherReason]);
          }
        });

  it('the handler against stop, expire and fail at the same time', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const { run, finishHandler } = await running();
      const outcome = Promise.race([one.next('run.finished'), one.next('run.finishRejected')]);
      finishHandler();
      const answers = await Promise.allSettled([
        other.engine.stopJobInQueue({ id: run.jobQueueEntryId }),
        other.engine.expireJob(run),
        other.engine.failJob(run, new Error('by hand')),
      ]);
      await outcome;
      const ended = await expectOneEnd(run, [null, 'Stopped', 'Expired', 'by hand']);
      const succeeded = answers.filter(
        (answer) => answer.status === 'fulfilled' && answer.value !== null,
      );
      expect(succeeded).toHaveLength(ended.result === 'SUCCEEDED' ? 0 : 1);
    }
  });
});
