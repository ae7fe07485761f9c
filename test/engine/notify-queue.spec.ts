import { startPostgres } from 'nestjs-bildad/testing';
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// PostgreSQL's queue of notifications is full when somebody listens and does not read: then every NOTIFY fails, and
// with it the transaction it is in. That is never the one that enqueues.

const PAGE = 8_192;
let server: Awaited<ReturnType<typeof startPostgres>>;
let bildad: TestApp;
let deaf: pg.Client;
beforeAll(async () => {
  server = await startPostgres({ settings: { max_notify_queue_pages: '64' } });
  const { url } = server;
  bildad = await bootApp({
    providers: [SimpleJob],
    database: { url, sql: () => Promise.resolve([]), drop: async () => {} },
  });
  deaf = new pg.Client({ connectionString: url });
  await deaf.connect();
});
afterAll(async () => {
  await deaf.end();
  await bildad.close();
  await server.stop();
});

it('a full queue costs no job, and no more than the wake-up', async () => {
  const { engine, sql, dataSource, next } = bildad;
  await deaf.query('LISTEN elsewhere');
  await deaf.query('BEGIN; SELECT 1');
  const fill = async () => {
    for (let page = 0; page < 1_000; page++)
      await sql(`SELECT pg_notify('elsewhere', repeat('x', $1))`, [PAGE - 300]);
  };
  await expect(fill()).rejects.toMatchObject({
    driverError: { code: '54000' },
  });

  const told = next('engine.error');
  const alone = await engine.enqueueJob(SimpleJob, { say: 'alone' });
  expect(await told).toMatchObject({
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
