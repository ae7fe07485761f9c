import { BildadJob, JobTemplateNotFoundError } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { gate } from '../support/gate.js';
import { SimpleJob } from '../support/handlers.js';
import { lockRows, waitingForLock } from '../support/lock.js';

// A row that another transaction has locked delays only the calls that need it.

@BildadJob({ code: 'OTHER' })
class OtherJob {
  runJob(): void {}
}

let bildad: TestApp;
const lost: unknown[] = [];
beforeAll(async () => {
  bildad = await bootApp({
    providers: [SimpleJob, OtherJob],
    options: { queryTimeout: '5s' },
  });
  bildad.events.on('database.lost', (event) => lost.push(event));
  for (const job of [SimpleJob, OtherJob]) await bildad.engine.enqueueJob(job, {});
});
beforeEach(() => (lost.length = 0));
afterAll(() => bildad.close());

function watched(work: Promise<unknown>) {
  const state = { isOver: false };
  void work.finally(() => (state.isOver = true)).catch(() => undefined);
  return state;
}

const lockTemplate = (code: string) =>
  lockRows(bildad, 'SELECT FROM bildad.job_templates WHERE code = $1', [code]);

/** Jobs of another template: plain, with an identifier, with a key, with startBefore, many. */
const others = () =>
  Promise.all([
    bildad.engine.enqueueJob(OtherJob, {}),
    bildad.engine.enqueueJob(OtherJob, {}, { jobRunIdentifier: `other ${counter++}` }),
    bildad.engine.enqueueJob(OtherJob, {}, { unique: { key: `other ${counter++}` } }),
    bildad.engine.enqueueJob(OtherJob, {}, { startBefore: '1h' }),
    bildad.engine.enqueueJobs(OtherJob, [{}, {}]),
  ]);
let counter = 0;

it('a locked template delays its own jobs only', async () => {
  const { engine } = bildad;
  const unlock = await lockTemplate('SIMPLE');
  const waiting = [
    engine.enqueueJob(SimpleJob, {}),
    engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'waits' }),
    engine.enqueueJob(SimpleJob, {}, { unique: { key: 'waits' } }),
    engine.enqueueJob(SimpleJob, {}, { startBefore: '1h' }),
    engine.enqueueJobs(SimpleJob, [{}, {}]),
  ];
  const state = watched(Promise.race(waiting));
  // In one statement with the waiting calls, and after it.
  for (let round = 0; round < 3; round++) await others();
  expect(state.isOver).toBe(false);
  await unlock();
  expect(await Promise.all(waiting)).toHaveLength(5);
  expect(lost).toEqual([]);
});

it('a call whose template stays locked fails with an error', async () => {
  const impatient = await bootApp({
    providers: [SimpleJob],
    database: bildad.database,
    options: { queryTimeout: '1s' },
  });
  await impatient.engine.enqueueJob(SimpleJob, {});
  const unlock = await lockTemplate('SIMPLE');
  await expect(impatient.engine.enqueueJob(SimpleJob, {})).rejects.toMatchObject({
    code: 'BILDAD_DATABASE',
    message: expect.stringContaining('the template of a job was locked by another transaction'),
  });
  await unlock();
  await impatient.app.close();
});

it('a call whose template is deleted while it waits fails with JobTemplateNotFoundError', async () => {
  const { engine, jobs } = bildad;
  const template = await jobs.createJobTemplate({ code: 'DELETED' });
  // The template is cached, so only the insert detects the deletion.
  await engine.cancelJob(await engine.enqueueJob('DELETED', {}));
  const runner = bildad.dataSource.createQueryRunner();
  await runner.startTransaction();
  await runner.query('DELETE FROM bildad.job_templates WHERE id = $1', [template.id]);
  const waiting = engine.enqueueJob('DELETED', {});
  const state = watched(waiting);
  for (let round = 0; round < 3; round++) await others();
  expect(state.isOver).toBe(false);
  await runner.commitTransaction();
  await runner.release();
  await expect(waiting).rejects.toBeInstanceOf(JobTemplateNotFoundError);
});

it('30 calls for a locked key do not delay calls for other keys', async () => {
  const { engine } = bildad;
  const runner = bildad.dataSource.createQueryRunner();
  await runner.startTransaction();
  await runner.query(
    `INSERT INTO bildad.job_keys (job_template_id, kind, key)
     SELECT id, 'unique', 'locked' FROM bildad.job_templates WHERE code = 'SIMPLE'`,
  );
  const waiting = Array.from({ length: 30 }, () =>
    engine.enqueueJob(SimpleJob, {}, { unique: { key: 'locked' } }),
  );
  const state = watched(Promise.race(waiting));
  await waitingForLock(bildad, 'enqueue_keyed_job');
  // All 30 calls fail after two query timeouts. In that time, 20 calls complete one after another.
  for (let round = 0; round < 20; round++)
    await engine.enqueueJob(SimpleJob, {}, { unique: { key: `free ${round}` } });
  await others();
  expect(state.isOver).toBe(false);
  await runner.rollbackTransaction();
  await runner.release();
  const entries = await Promise.all(waiting);
  expect(new Set(entries.map(({ id }) => id)).size).toBe(1);
  expect(lost).toEqual([]);
});

it('enqueueJobs calls that wait for their sources do not delay other calls', async () => {
  const { engine } = bildad;
  const more = gate();
  async function* slow() {
    // Enough for a batch, which opens the transaction.
    for (let n = 0; n < 2_100; n++) yield {};
    await more.opened;
  }
  const waiting = [1, 2].map(() => engine.enqueueJobs(SimpleJob, slow()));
  const state = watched(Promise.race(waiting));
  await expect
    .poll(() =>
      bildad.database.sql(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`,
      ),
    )
    .toHaveLength(2);
  for (let round = 0; round < 3; round++) await others();
  expect(state.isOver).toBe(false);
  more.open();
  for (const entries of await Promise.all(waiting)) expect(entries).toHaveLength(2_100);
});
