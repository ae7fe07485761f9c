import { IsInt, IsString } from 'class-validator';
import { BildadJob, InvalidJobContextError, type JobHandler } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';

// Part of run_a_job: a context that was valid at enqueue and is invalid at run time ends as one
// FAILED run with the violations as reason. Deviation from upstream: the job is not launched, and
// it leaves the queue for any maxRetries.

class Address {
  @IsString() street!: string;
}

class StricterAddress {
  @IsString() street!: string;
  @IsInt() number!: number;
}

let launched = 0;

@BildadJob({ code: 'LETTER', context: Address })
class LetterJob implements JobHandler<Address> {
  runJob(): void {
    launched++;
  }
}

@BildadJob({ code: 'LETTER', context: StricterAddress })
class StricterLetterJob implements JobHandler<StricterAddress> {
  runJob(): void {
    launched++;
  }
}

@BildadJob({
  code: 'PARCEL',
  context: {
    type: 'object',
    required: ['grams'],
    properties: { grams: { type: 'number', maximum: 1000 } },
  },
})
class ParcelJob implements JobHandler<{ grams: number }> {
  runJob(): void {
    launched++;
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [LetterJob, ParcelJob] });
});
beforeEach(() => {
  launched = 0;
});
afterAll(() => bildad.close());

const change = (context: object, entry: { id: string }) =>
  bildad.sql('UPDATE bildad.job_queue_entries SET job_context = $1 WHERE id = $2', [
    JSON.stringify(context),
    entry.id,
  ]);

async function expectOneFailedRun(
  { engine, jobs }: TestApp,
  jobRunIdentifier: string,
  reason: string,
): Promise<void> {
  expect(await jobs.getJobQueueEntryForIdentifier(jobRunIdentifier)).toBeNull();
  // A further pass finds nothing to run.
  await engine.runJobEngine();
  const runs = await jobs.listJobRunsForIdentifier(jobRunIdentifier);
  expect(runs).toMatchObject([
    {
      retry: 0,
      status: 'DONE',
      result: 'FAILED',
      output: null,
      error: { name: 'InvalidJobContextError' },
    },
  ]);
  expect(runs[0]!.reason).toContain(reason);
  expect(runs[0]!.endedAt).toBeInstanceOf(Date);
  expect(launched).toBe(0);
}

it.each([0, 3, 1000])(
  'a row changed after enqueue, maxRetries %i: runJob rejects and records one FAILED run',
  async (maxRetries) => {
    const { engine } = bildad;
    const entry = await engine.enqueueJob(ParcelJob, { grams: 10 }, { maxRetries });
    await change({ grams: 5000 }, entry);
    const refusal = engine.runJob(entry).catch((error: unknown) => error);
    expect(await refusal).toBeInstanceOf(InvalidJobContextError);
    expect(await refusal).toMatchObject({ violations: [{ path: 'grams' }] });
    await expectOneFailedRun(bildad, entry.jobRunIdentifier, 'grams');
  },
);

it('a pass of the engine reports an invalid context as an outcome that is not ok', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(LetterJob, { street: 'Elm' }, { maxRetries: 5 });
  await change({ street: 7 }, entry);
  const { start } = await engine.runJobEngine();
  expect(start).toMatchObject([{ ok: false, error: { code: 'INVALID_JOB_CONTEXT' } }]);
  await expectOneFailedRun(bildad, entry.jobRunIdentifier, 'street');
});

it.each(['"text"', '[1]', 'null', '{"constructor": 1, "street": "Elm"}'])(
  'an invalid stored context ends as one FAILED run: %s',
  async (stored) => {
    const { engine } = bildad;
    const entry = await engine.enqueueJob(LetterJob, { street: 'Elm' });
    await change(JSON.parse(stored) as object, entry);
    await expect(engine.runJob(entry)).rejects.toBeInstanceOf(InvalidJobContextError);
    await expectOneFailedRun(bildad, entry.jobRunIdentifier, 'invalid');
  },
);

it('a job enqueued before a deploy with a stricter class fails once', async () => {
  const entry = await bildad.engine.enqueueJob(LetterJob, { street: 'Elm' });
  const tomorrow = await bootApp({
    database: bildad.database,
    providers: [StricterLetterJob],
  });
  expect((await tomorrow.engine.runJobEngine()).start).toMatchObject([{ ok: false }]);
  await expectOneFailedRun(tomorrow, entry.jobRunIdentifier, 'number');
  await tomorrow.close();
});
