import { IsInt } from 'class-validator';
import {
  BildadConfigError,
  BildadJob,
  InvalidJobContextError,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';

// enqueueJobs inserts many contexts of one job, all or none, from any iterable.

class Row {
  @IsInt() n!: number;
}

@BildadJob({ code: 'ROW', context: Row })
class RowJob implements JobHandler<Row> {
  runJob(): void {}
}

const BATCH = 2_000;
const MANY = 100_000;

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [RowJob],
    options: { role: 'producer', notify: false },
  });
});
beforeEach(() => bildad.sql('TRUNCATE bildad.job_queue_entries'));
afterAll(() => bildad.close());

const rowsOf = (length: number) => Array.from({ length }, (_none, n) => ({ n }));

/** The `n` of each queue entry, by job identifier. */
async function numbers(): Promise<Map<string, number>> {
  const rows = await bildad.sql<{ name: string; n: number }>(
    `SELECT job_run_identifier AS name, (job_context ->> 'n')::int AS n FROM bildad.job_queue_entries`,
  );
  return new Map(rows.map(({ name, n }) => [name, n]));
}

/** A source of rows that records how many rows were read and whether it was closed. */
function source(length: number, rowOf = (n: number): Row => ({ n })) {
  const state = { read: 0, closed: false };
  async function* read() {
    try {
      while (state.read < length) yield rowOf(state.read++);
    } finally {
      await Promise.resolve();
      state.closed = true;
    }
  }
  return Object.assign(state, { contexts: read() });
}

it(`enqueueJobs inserts ${MANY} contexts and returns their identifiers in order`, async () => {
  const contexts = rowsOf(MANY);
  const entries = await bildad.engine.enqueueJobs(RowJob, contexts);
  expect(entries).toHaveLength(MANY);
  const queued = await numbers();
  expect(queued.size).toBe(MANY);
  expect(entries.every(({ jobRunIdentifier }, n) => queued.get(jobRunIdentifier) === n)).toBe(true);
});

it('an async iterable is read while its rows are inserted, at most a few thousand rows ahead', async () => {
  const { engine, dataSource } = bildad;
  const rows = source(20_000);
  let maxAhead = 0;
  const entries = await dataSource.transaction(async (manager) => {
    const query = manager.queryRunner!.query.bind(manager.queryRunner);
    let sent = 0;
    let inserted = 0;
    vi.spyOn(manager.queryRunner!, 'query').mockImplementation(
      async (sql: string, ...rest: unknown[]) => {
        const insertsRows = sql.includes('"enqueue_jobs"');
        if (insertsRows) sent++;
        const result: unknown = await query(sql, ...(rest as [unknown[]]));
        maxAhead = Math.max(maxAhead, rows.read - inserted);
        if (insertsRows) inserted += BATCH;
        return result;
      },
    );
    const returned = await engine.enqueueJobs(RowJob, rows.contexts, { manager });
    expect(sent).toBe(10);
    return returned;
  });
  expect(maxAhead).toBeLessThanOrEqual(4 * BATCH);
  expect(rows).toMatchObject({ read: 20_000, closed: true });
  // Entries from an iterable have only their identifiers.
  expect(Object.keys(entries[0]!)).toEqual(['id', 'jobRunIdentifier']);
  const queued = await numbers();
  expect(entries.every(({ jobRunIdentifier }, n) => queued.get(jobRunIdentifier) === n)).toBe(true);
});

it('enqueueJobs accepts an iterable, a set and empty input', async () => {
  const { engine } = bildad;
  function* read() {
    yield* rowsOf(3);
  }
  expect(await engine.enqueueJobs(RowJob, read())).toHaveLength(3);
  expect(await engine.enqueueJobs(RowJob, new Set(rowsOf(2)))).toHaveLength(2);
  expect(await engine.enqueueJobs(RowJob, [])).toEqual([]);
  expect(await engine.enqueueJobs(RowJob, new Set<Row>())).toEqual([]);
  expect(await engine.enqueueJobs(RowJob, source(0).contexts)).toEqual([]);
  expect((await numbers()).size).toBe(5);
});

it('violations have their index in the whole input, and no job is inserted', async () => {
  const rows = source(30_000, (n) =>
    n === 5_001 || n === 5_004 || n === 20_000 ? { n: 0.5 } : { n },
  );
  const error: unknown = await bildad.engine
    .enqueueJobs(RowJob, rows.contexts)
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InvalidJobContextError);
  expect((error as InvalidJobContextError).violations.map(({ path }) => path)).toEqual([
    '[5001].n',
    '[5004].n',
  ]);
  // An invalid row stops the reading early.
  expect(rows.read).toBeLessThan(8_000);
  expect(rows.closed).toBe(true);
  const wrong = rowsOf(30_000).with(20_000, { n: 0.5 }).with(5_001, { n: 0.5 });
  await expect(bildad.engine.enqueueJobs(RowJob, wrong)).rejects.toMatchObject({
    violations: [{ path: '[5001].n' }, { path: '[20000].n' }],
  });
  expect((await numbers()).size).toBe(0);
});

it('a source that fails or is not read to its end is closed, and no job is inserted', async () => {
  const failing = source(10_000, (n) => {
    if (n === 9_000) throw new Error('the file is broken');
    return { n };
  });
  await expect(bildad.engine.enqueueJobs(RowJob, failing.contexts)).rejects.toThrow(
    'the file is broken',
  );
  expect(failing.closed).toBe(true);
  const rows = source(10_000);
  const transaction = bildad.dataSource.transaction(async (manager) => {
    await manager.query(
      'ALTER TABLE bildad.job_queue_entries ADD CONSTRAINT small CHECK (id < 0) NOT VALID',
    );
    await bildad.engine.enqueueJobs(RowJob, rows.contexts, { manager });
  });
  await expect(transaction).rejects.toThrow(/small/);
  expect(rows.read).toBeLessThan(10_000);
  expect(rows.closed).toBe(true);
  expect((await numbers()).size).toBe(0);
});

it("enqueueJobs in the caller's transaction commits all jobs or none", async () => {
  const { engine, dataSource } = bildad;
  const enqueue = (fail: boolean) =>
    dataSource.transaction(async (manager) => {
      await engine.enqueueJobs(RowJob, source(5_000).contexts, { manager });
      if (fail) throw new Error('rolled back');
    });
  await expect(enqueue(true)).rejects.toThrow('rolled back');
  expect((await numbers()).size).toBe(0);
  await enqueue(false);
  expect((await numbers()).size).toBe(5_000);
});

it.each([undefined, null, 5, 'text', { n: 1 }, () => []])(
  'contexts of %s are refused',
  async (contexts) => {
    const error: unknown = await bildad.engine
      .enqueueJobs(RowJob, contexts as never)
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error).toMatchObject({ field: 'contexts' });
  },
);
