import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { createLedger, EffectJob, effects, heldHandler } from './ledger.js';

// The connection is lost around the COMMIT of a handler's transaction. The row of the run tells
// whether it was committed, and a committed job does not run again.

let database: TestDatabase;
let proxy: Proxy;
let bildad: TestApp;
beforeAll(async () => {
  database = await createDatabase();
  await createLedger(database);
});
afterAll(() => database.drop());
beforeEach(async () => {
  proxy = await startProxy(database.url);
  bildad = await bootApp({
    providers: [EffectJob],
    database: { ...database, url: proxy.url },
    options: { queryTimeout: 1_000 },
  });
});
afterEach(async () => {
  await proxy.pass();
  await bildad.app.close();
  await proxy.close();
  await database.sql(
    'DELETE FROM ledger; DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs',
  );
});

const runs = () => database.sql('SELECT status, result FROM bildad.job_runs ORDER BY id');

it('a lost response to COMMIT: the run has succeeded and is reported as completed', async () => {
  const { engine, next } = bildad;
  const entry = await engine.enqueueJob(EffectJob, { name: 'once' });
  const finished = next('run.finished');
  const cut = proxy.cutAfter('COMMIT');
  await engine.runJob(entry);
  await cut;
  expect(await finished).toMatchObject({
    outcome: 'completed',
    entry: 'removed',
  });
  expect(await effects(database)).toEqual({ once: 1 });
  expect(await runs()).toEqual([{ status: 'DONE', result: 'SUCCEEDED' }]);
});

it('a connection lost before COMMIT: nothing is committed and the run fails', async () => {
  const { engine, next } = bildad;
  const entry = await engine.enqueueJob(EffectJob, {
    name: 'never',
    hold: true,
  });
  const finished = next('run.finished');
  await engine.runJob(entry);
  const { door } = await heldHandler();
  await proxy.refuse();
  door.open('done');
  await proxy.pass();
  expect(await finished).toMatchObject({
    outcome: 'failed',
    entry: 'reopened',
  });
  expect(await effects(database)).toEqual({});
});

it('a connection that silently stops responding: the run fails in time', async () => {
  const { engine, next } = bildad;
  const entry = await engine.enqueueJob(EffectJob, {
    name: 'never',
    hold: true,
  });
  const finished = next('run.finished');
  await engine.runJob(entry);
  const { door } = await heldHandler();
  proxy.blackholeOpen();
  door.open('done');
  expect(await finished).toMatchObject({ outcome: 'failed' });
  expect(await effects(database)).toEqual({});
});
