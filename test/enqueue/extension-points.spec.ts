import type { EnqueueOptions } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { EntryReference } from '../../src/lifecycle/enqueue/enqueue.sql.js';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// beforeEnqueue extends entries before their INSERT. afterEnqueueCommit receives them after the commit.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob], options: { role: 'producer' } });
});
afterAll(() => bildad.close());

const extensions = () => (bildad.engine as unknown as { bildad: BildadRuntime }).bildad.extensions;
const registered: (() => void)[] = [];
afterEach(() => registered.splice(0).forEach((unsubscribe) => unsubscribe()));

const ways: [string, () => Promise<unknown>][] = [
  ['one job', () => bildad.engine.enqueueJob(SimpleJob, { say: 1 })],
  [
    'a named job',
    () => bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: `n${count++}` }),
  ],
  [
    'a keyed job',
    () => bildad.engine.enqueueJob(SimpleJob, {}, { unique: { key: `k${count++}` } }),
  ],
  ['many jobs', () => bildad.engine.enqueueJobs(SimpleJob, [{}, {}])],
  [
    'a job in a transaction',
    () => bildad.engine.transaction(() => bildad.engine.enqueueJob(SimpleJob, {})),
  ],
];
let count = 0;

it.each(ways)('beforeEnqueue changes columns and the envelope of %s', async (way, enqueue) => {
  const hasKey = way === 'a keyed job';
  const codes: string[] = [];
  registered.push(
    extensions().beforeEnqueue.register('test', (prepared) => {
      codes.push(prepared.templateCode);
      prepared.entry.priority = 42;
      if (!hasKey) prepared.entry.startBefore = { withinMs: 60_000 };
      prepared.captured = { ofJob: { extra: 'data' } };
    }),
  );
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
  await enqueue();
  const entries = await bildad.sql(
    `SELECT priority, job_context -> '$bildad' -> 'carried' AS carried,
       start_before = inserted_at + interval '1 min' AS "startsBefore" FROM bildad.job_queue_entries`,
  );
  expect(codes).toEqual(entries.map(() => 'SIMPLE'));
  for (const entry of entries)
    expect(entry).toEqual({
      priority: 42,
      carried: { extra: 'data' },
      startsBefore: hasKey ? null : true,
    });
});

it('an error of beforeEnqueue rejects the call', async () => {
  registered.push(
    extensions().beforeEnqueue.register('test', () => {
      throw new Error('refused');
    }),
  );
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
  await expect(bildad.engine.enqueueJob(SimpleJob, {})).rejects.toThrow('refused');
  expect(await bildad.jobs.getNumberOfJobsInTheQueue()).toBe(0);
});

function committed(): string[] {
  const identifiers: string[] = [];
  registered.push(
    extensions().afterEnqueueCommit.register(
      'test',
      (code: string, entries: readonly EntryReference[]) => {
        expect(code).toBe('SIMPLE');
        identifiers.push(...entries.map(({ jobRunIdentifier }) => jobRunIdentifier));
      },
    ),
  );
  return identifiers;
}

const named = (jobRunIdentifier: string, options: EnqueueOptions = {}) =>
  bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier, ...options });

it('afterEnqueueCommit receives new entries of direct calls at once, and no deduplicated ones', async () => {
  const identifiers = committed();
  await named('direct');
  const many = await bildad.engine.enqueueJobs(SimpleJob, [{}, {}]);
  await named('holder', { unique: { key: 'one' } });
  await named('deduplicated', { unique: { key: 'one' } });
  expect(identifiers).toEqual(['direct', ...many.map((entry) => entry.jobRunIdentifier), 'holder']);
});

it("afterEnqueueCommit receives the entries of a caller's transaction after its commit", async () => {
  const identifiers = committed();
  await bildad.engine.transaction(async (manager) => {
    await named('outer');
    await manager.transaction(() => named('released savepoint'));
    await manager
      .transaction(async () => {
        await named('rolled back savepoint');
        throw new Error('rolled back');
      })
      .catch(() => undefined);
    expect(identifiers).toEqual([]);
  });
  expect(identifiers).toEqual(['outer', 'released savepoint']);
});

it('afterEnqueueCommit receives no entries of a transaction that is rolled back', async () => {
  const identifiers = committed();
  const transaction = bildad.engine.transaction(async () => {
    await named('rolled back');
    throw new Error('rolled back');
  });
  await expect(transaction).rejects.toThrow('rolled back');
  await named('after');
  expect(identifiers).toEqual(['after']);
});

it('an error of afterEnqueueCommit is reported, and the call succeeds', async () => {
  registered.push(
    extensions().afterEnqueueCommit.register('test', () => {
      throw new Error('hook');
    }),
  );
  const reported = bildad.next('engine.error');
  expect(await named('reported')).toMatchObject({ jobRunIdentifier: 'reported' });
  expect(await reported).toMatchObject({ doing: 'announcing enqueued jobs' });
});
