import { ValidateBy } from 'class-validator';
import { BildadJob, DuplicateJobError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// Concurrent enqueueJob calls share an insert, and each call gets its own result.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
  await bildad.engine.enqueueJob(SimpleJob, {});
});
afterAll(() => bildad.close());

const enqueueAll = (names: (string | undefined)[]) =>
  Promise.allSettled(
    names.map((jobRunIdentifier, n) =>
      bildad.engine.enqueueJob(
        SimpleJob,
        { say: n },
        jobRunIdentifier === undefined ? {} : { jobRunIdentifier },
      ),
    ),
  );

it('100 concurrent calls take a few statements and keep their order', async () => {
  const spy = vi.spyOn(bildad.dataSource, 'query');
  const answers = await enqueueAll(Array.from({ length: 100 }, () => undefined));
  expect(spy.mock.calls.length).toBeLessThanOrEqual(3);
  spy.mockRestore();
  const entries = answers.map((answer) => answer.status === 'fulfilled' && answer.value);
  expect(entries.map((entry) => entry && entry.jobContext)).toEqual(
    entries.map((_entry, n) => ({ say: n })),
  );
  const ids = entries.map((entry) => BigInt((entry || { id: 0 }).id));
  expect(ids.every((id, n) => n === 0 || id > ids[n - 1]!)).toBe(true);
});

it('a duplicate or an invalid context is refused alone', async () => {
  await bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'taken' });
  const [before, taken, twice, duplicate, after, bad] = await Promise.allSettled([
    bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'before' }),
    bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'taken' }),
    bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'twice' }),
    bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'twice' }),
    bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'after' }),
    bildad.engine.enqueueJob(SimpleJob, { say: NaN }, { jobRunIdentifier: 'bad' }),
  ]);
  expect([before, twice, after]).toMatchObject([
    { value: { jobRunIdentifier: 'before' } },
    { value: { jobRunIdentifier: 'twice' } },
    { value: { jobRunIdentifier: 'after' } },
  ]);
  expect(taken).toMatchObject({ reason: expect.any(DuplicateJobError) });
  expect(duplicate).toMatchObject({ reason: expect.any(DuplicateJobError) });
  expect(bad).toMatchObject({ reason: { code: 'INVALID_JOB_CONTEXT' } });
});

it("a call in a caller's transaction does not join a batch", async () => {
  const { engine, dataSource, jobs } = bildad;
  const rolledBack = dataSource
    .transaction(async (manager) => {
      await Promise.all([
        engine.enqueueJob(SimpleJob, {}, { manager, jobRunIdentifier: 'mine' }),
        engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: "other's" }),
      ]);
      throw new Error('rolled back');
    })
    .catch((error: Error) => error.message);
  expect(await rolledBack).toBe('rolled back');
  expect(await jobs.getJobQueueEntryForIdentifier('mine')).toBeNull();
  expect(await jobs.getJobQueueEntryForIdentifier("other's")).not.toBeNull();
});

it('two batches with the same identifiers in reverse order both complete', async () => {
  const names = Array.from({ length: 50 }, (_none, n) => `contested-${n}`);
  const other = await bootApp({
    providers: [SimpleJob],
    database: bildad.database,
  });
  const answers = await Promise.all([
    enqueueAll(names),
    Promise.allSettled(
      names
        .toReversed()
        .map((jobRunIdentifier) => other.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier })),
    ),
  ]);
  await other.close();
  const won = answers.flat().filter(({ status }) => status === 'fulfilled');
  expect(won).toHaveLength(names.length);
  for (const answer of answers.flat())
    if (answer.status === 'rejected') expect(answer.reason).toBeInstanceOf(DuplicateJobError);
});

it('validators with queries need no connection beyond those of their own transactions', async () => {
  const { dataSource, engine } = bildad;
  class QueryingContext {
    @ValidateBy({
      name: 'isKnown',
      async: true,
      validator: {
        validate: async () => (await dataSource.query('SELECT 1')).length === 1,
      },
    })
    n!: number;
  }
  class QueryingJob {
    runJob(): void {}
  }
  BildadJob({ code: 'SIMPLE', context: QueryingContext })(QueryingJob);
  // TypeORM's pool has ten connections by default.
  const all = await Promise.all(
    Array.from({ length: 30 }, () =>
      engine.enqueueJobs(QueryingJob, [{ n: 1 }, { n: 2 }] as never[]),
    ),
  );
  expect(all.flat()).toHaveLength(60);
});
