import { startPostgres } from 'nestjs-bildad/testing';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// PostgreSQL's notification queue is full when a session listens and does not read. Then every NOTIFY fails and
// aborts its transaction. The engine sends no NOTIFY in the transaction of an enqueue.

const PAGE = 8_192;
let server: Awaited<ReturnType<typeof startPostgres>>;
let bildad: TestApp;
let stalled: pg.Client;
beforeAll(async () => {
  server = await startPostgres({ settings: { max_notify_queue_pages: '64' } });
  const { url } = server;
  bildad = await bootApp({
    providers: [SimpleJob],
    database: { url, sql: () => Promise.resolve([]), drop: async () => {} },
  });
  stalled = new pg.Client({ connectionString: url });
  await stalled.connect();
});
afterAll(async () => {
  await stalled.end();
  await bildad.close();
  await server.stop();
});

it('a full notification queue loses no job, only the wake-up', async () => {
  const { engine, sql, dataSource, next } = bildad;
  await stalled.query('LISTEN elsewhere');
  await stalled.query('BEGIN; SELECT 1');
  const fill = async () => {
    for (let page = 0; page < 1_000; page++)
      await sql(`SELECT pg_notify('elsewhere', repeat('x', $1))`, [PAGE - 300]);
  };
  await expect(fill()).rejects.toMatchObject({
    driverError: { code: '54000' },
  });

  const failed = next('engine.error');
  const alone = await engine.enqueueJob(SimpleJob, { say: 'alone' });
  expect(await failed).toMatchObject({
    doing: 'waking other nodes',
    error: { driverError: { code: '54000' } },
  });
  const many = await engine.enqueueJobs(SimpleJob, [{}, {}]);
  const within = await dataSource.transaction((manager) =>
    engine.enqueueJob(SimpleJob, {}, { manager }),
  );
  await engine.runJobEngine();
  for (const { jobRunIdentifier } of [alone, ...many, within])
    expect(await engine.waitForJob(jobRunIdentifier)).toMatchObject({
      result: 'SUCCEEDED',
    });
});
