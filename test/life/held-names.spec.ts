import { DuplicateJobError, type EnqueueOptions } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { gate } from '../support/gate.js';
import { SimpleJob } from '../support/handlers.js';
import { waitingForLock } from '../support/lock.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// A transaction that is left open holds the name of a job: who wants that name waits for it, and nobody else.

const QUERY_TIMEOUT_MS = 1_000;

let bildad: TestApp;
let proxy: Proxy;
/** Whose connections may be cut. */
let behindTheWire: TestApp;
const lost: unknown[] = [];
beforeAll(async () => {
  const options = { queryTimeout: QUERY_TIMEOUT_MS };
  bildad = await bootApp({ providers: [SimpleJob], options });
  proxy = await startProxy(bildad.database.url);
  behindTheWire = await bootApp({
    providers: [SimpleJob],
    database: { ...bildad.database, url: proxy.url },
    options,
  });
  await behindTheWire.engine.enqueueJob(SimpleJob, {});
  bildad.events.on('database.lost', (event) => lost.push(event));
});
afterAll(async () => {
  await behindTheWire.close();
  await proxy.close();
  await bildad.close();
});
beforeEach(() => (lost.length = 0));

let names = 0;
const newName = () => `name-${++names}`;

/** @returns what ends the transaction that has enqueued a job of this name */
async function holding(jobRunIdentifier: string) {
  const end = gate<'commit' | 'roll back'>();
  const held = gate();
  const transaction = bildad.engine
    .transaction(async (manager) => {
      await bildad.engine.enqueueJob(SimpleJob, { say: 'first' }, { jobRunIdentifier, manager });
      held.open();
      if ((await end.opened) === 'roll back') throw new Error('rolled back');
    })
    .catch((error: Error) => expect(error.message).toBe('rolled back'));
  await held.opened;
  return async (how: 'commit' | 'roll back') => {
    end.open(how);
    await transaction;
  };
}

const wanting = ({ engine }: TestApp, jobRunIdentifier: string, options: EnqueueOptions = {}) =>
  engine
    .enqueueJob(SimpleJob, {}, { jobRunIdentifier, ...options })
    .catch((error: unknown) => error);

/** Whether it is over by now is asked of what happens meanwhile, not of a clock. */
function watched(work: Promise<unknown>) {
  const state = { over: false };
  void work.finally(() => (state.over = true));
  return state;
}

const soon = [
  ['no time', {}],
  ['a time to start by', { startBefore: '1h' }],
] as const satisfies [string, EnqueueOptions][];

it.each(soon)(
  'other jobs are enqueued meanwhile, with a name and without, where the one that waits has %s',
  async (_what, options) => {
    const { engine } = bildad;
    const name = newName();
    const end = await holding(name);
    const waiting = Array.from({ length: 6 }, () => wanting(bildad, name, options));
    const others = () =>
      Promise.all([
        engine.enqueueJob(SimpleJob, {}),
        engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: newName() }),
        engine.enqueueJob(SimpleJob, {}, { startBefore: '1h' }),
        engine.enqueueJobs(SimpleJob, [{}, {}]),
      ]);
    const together = others();
    await waitingForLock(bildad, 'enqueue_jobs');
    const state = watched(Promise.race(waiting));
    await together;
    for (let round = 0; round < 10; round++) await others();
    expect(state.over).toBe(false);
    await end('commit');
    for (const answer of await Promise.all(waiting))
      expect(answer).toBeInstanceOf(DuplicateJobError);
    expect(lost).toEqual([]);
  },
);

it.each(soon)(
  'its job is enqueued when the transaction is rolled back, where it has %s',
  async (_what, options) => {
    const name = newName();
    const end = await holding(name);
    const waiting = wanting(bildad, name, options);
    await waitingForLock(bildad, 'enqueue_jobs');
    await end('roll back');
    expect(await waiting).toMatchObject({ jobRunIdentifier: name });
    expect(await bildad.jobs.getJobQueueEntryForIdentifier(name)).toMatchObject({
      jobRunIdentifier: name,
    });
    expect(lost).toEqual([]);
  },
);

it('who waits for too long is told what for, and no other call fails', async () => {
  const name = newName();
  const end = await holding(name);
  const waiting = wanting(bildad, name);
  const state = watched(waiting);
  while (!state.over) {
    await bildad.engine.enqueueJob(SimpleJob, {});
    await bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: newName() });
  }
  expect(await waiting).toMatchObject({
    code: 'BILDAD_DATABASE',
    message: expect.stringMatching(
      /the jobRunIdentifier of a job was locked by another transaction for more than 2000 ms/,
    ),
  });
  expect(lost).toEqual([]);
  await end('commit');
});

it('what was sent over a connection that is lost is sent again for the other jobs', async () => {
  const name = newName();
  const end = await holding(name);
  // Caches the template: it is not read over the lost connection.
  await behindTheWire.engine.enqueueJob(SimpleJob, {});
  proxy.blackholeOpen();
  const waiting = wanting(behindTheWire, name);
  const state = watched(waiting);
  await Promise.all([
    behindTheWire.engine.enqueueJob(SimpleJob, {}),
    behindTheWire.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: newName() }),
  ]);
  expect(state.over).toBe(false);
  await end('commit');
  expect(await waiting).toBeInstanceOf(DuplicateJobError);
});
