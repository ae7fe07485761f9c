import { DuplicateJobError, type EnqueueOptions } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { gate } from '../support/gate.js';
import { SimpleJob } from '../support/handlers.js';
import { waitingForLock } from '../support/lock.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// An open transaction locks the identifier of a job. Only calls with that identifier wait for it.

const QUERY_TIMEOUT_MS = 1_000;

let bildad: TestApp;
let proxy: Proxy;
/** Connects through the proxy. */
let proxied: TestApp;
const lost: unknown[] = [];
beforeAll(async () => {
  const options = { queryTimeout: QUERY_TIMEOUT_MS };
  bildad = await bootApp({ providers: [SimpleJob], options });
  proxy = await startProxy(bildad.database.url);
  proxied = await bootApp({
    providers: [SimpleJob],
    database: { ...bildad.database, url: proxy.url },
    options,
  });
  await proxied.engine.enqueueJob(SimpleJob, {});
  bildad.events.on('database.lost', (event) => lost.push(event));
});
afterAll(async () => {
  await proxied.close();
  await proxy.close();
  await bildad.close();
});
beforeEach(() => (lost.length = 0));

let identifiers = 0;
const newIdentifier = () => `name-${++identifiers}`;

/** Enqueues a job in an open transaction. @returns the function that ends the transaction */
async function lockIdentifier(jobRunIdentifier: string) {
  const end = gate<'commit' | 'roll back'>();
  const locked = gate();
  const transaction = bildad.engine
    .transaction(async (manager) => {
      await bildad.engine.enqueueJob(SimpleJob, { say: 'first' }, { jobRunIdentifier, manager });
      locked.open();
      if ((await end.opened) === 'roll back') throw new Error('rolled back');
    })
    .catch((error: Error) => expect(error.message).toBe('rolled back'));
  await locked.opened;
  return async (how: 'commit' | 'roll back') => {
    end.open(how);
    await transaction;
  };
}

const enqueueLocked = (
  { engine }: TestApp,
  jobRunIdentifier: string,
  options: EnqueueOptions = {},
) =>
  engine
    .enqueueJob(SimpleJob, {}, { jobRunIdentifier, ...options })
    .catch((error: unknown) => error);

/** Tracks whether the work has ended, without a clock. */
function watched(work: Promise<unknown>) {
  const state = { over: false };
  void work.finally(() => (state.over = true));
  return state;
}

const OPTIONS = [
  ['no startBefore', {}],
  ['startBefore', { startBefore: '1h' }],
] as const satisfies [string, EnqueueOptions][];

it.each(OPTIONS)(
  'a locked identifier does not delay calls with other identifiers, if the waiting call has %s',
  async (_what, options) => {
    const { engine } = bildad;
    const name = newIdentifier();
    const end = await lockIdentifier(name);
    const waiting = Array.from({ length: 6 }, () => enqueueLocked(bildad, name, options));
    const others = () =>
      Promise.all([
        engine.enqueueJob(SimpleJob, {}),
        engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: newIdentifier() }),
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

it.each(OPTIONS)(
  'a waiting call enqueues its job after a rollback, if it has %s',
  async (_what, options) => {
    const name = newIdentifier();
    const end = await lockIdentifier(name);
    const waiting = enqueueLocked(bildad, name, options);
    await waitingForLock(bildad, 'enqueue_jobs');
    await end('roll back');
    expect(await waiting).toMatchObject({ jobRunIdentifier: name });
    expect(await bildad.jobs.getJobQueueEntryForIdentifier(name)).toMatchObject({
      jobRunIdentifier: name,
    });
    expect(lost).toEqual([]);
  },
);

it('a call that waits for too long fails with an error that names the lock, and no other call fails', async () => {
  const name = newIdentifier();
  const end = await lockIdentifier(name);
  const waiting = enqueueLocked(bildad, name);
  const state = watched(waiting);
  while (!state.over) {
    await bildad.engine.enqueueJob(SimpleJob, {});
    await bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: newIdentifier() });
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

it('a batch on a lost connection is sent again for its other jobs', async () => {
  const name = newIdentifier();
  const end = await lockIdentifier(name);
  // Caches the template, so that it is not read over the lost connection.
  await proxied.engine.enqueueJob(SimpleJob, {});
  proxy.blackholeOpen();
  const waiting = enqueueLocked(proxied, name);
  const state = watched(waiting);
  await Promise.all([
    proxied.engine.enqueueJob(SimpleJob, {}),
    proxied.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: newIdentifier() }),
  ]);
  expect(state.over).toBe(false);
  await end('commit');
  expect(await waiting).toBeInstanceOf(DuplicateJobError);
});
