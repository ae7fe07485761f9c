import type { Socket } from 'node:net';
import type pg from 'pg';
import { Injectable } from '@nestjs/common';
import { BildadJob, OnJobEvent, type BildadModuleOptions, type JobExecution } from 'nestjs-bildad';
import { it } from 'vitest';
import { bootApp } from '../support/app.js';
import { createDatabase } from '../support/database.js';
import { gate, type Gate } from '../support/gate.js';
import { SimpleJob } from '../support/handlers.js';
import { startProxy } from '../support/proxy.js';

// app.close() returns within its deadline, whatever the database does: drain, grace, five seconds for the last
// outcomes, five for wake-ups, two for the connections.

const DRAIN_MS = 500;
const GRACE_MS = 100;
const DEADLINE_MS = DRAIN_MS + GRACE_MS + 5_000 + 5_000 + 2_000;

/** One of its own: each of them waits for as long as a dead database is waited for, all at the same time. */
async function boot(options: BildadModuleOptions = {}) {
  @BildadJob({ code: 'GATED', maxRetries: 3, timeout: '1h' })
  class OwnGatedJob {
    runJob({ deaf }: { deaf?: boolean }, job: JobExecution): Promise<unknown> {
      const door = gate<unknown>();
      arrived.open({ door, job });
      return deaf
        ? door.opened
        : new Promise((_resolve, reject) => {
            job.signal.addEventListener('abort', () => reject(job.signal.reason as Error));
          });
    }
  }
  const arrived = gate<Arrival>();
  const database = await createDatabase();
  const proxy = await startProxy(database.url);
  const bildad = await bootApp({
    providers: [SimpleJob, OwnGatedJob],
    database: { ...database, url: proxy.url },
    options: {
      tickInterval: 100,
      shutdown: { drainTimeout: DRAIN_MS, killGracePeriod: GRACE_MS },
      ...options,
    },
  });
  await bildad.engine.enqueueJob(SimpleJob, {});
  return {
    database,
    proxy,
    bildad,
    /** A job that runs until it is told to stop, or until its door is open. */
    begin: async (context: { deaf?: boolean } = {}) => {
      const run = await bildad.engine.enqueueAndRunJob(OwnGatedJob, context);
      return { run, ...(await arrived.opened) };
    },
    closing: async (): Promise<number> => {
      const from = performance.now();
      await bildad.app.close();
      return performance.now() - from;
    },
    leave: async () => {
      await proxy.close();
      await database.drop();
    },
  };
}

interface Arrival {
  door: Gate<unknown>;
  job: JobExecution;
}

it.concurrent('nothing answers any more', async ({ expect }) => {
  const { begin, closing, leave, proxy } = await boot();
  await begin();
  proxy.blackhole();
  expect(await closing()).toBeLessThan(DEADLINE_MS);
  await leave();
});

it.concurrent('nothing answers, a handler is deaf, and it is closed twice', async ({ expect }) => {
  const { begin, closing, leave, proxy } = await boot();
  const { door } = await begin({ deaf: true });
  proxy.blackhole();
  const [first, second] = await Promise.all([closing(), closing()]);
  expect(first).toBeLessThan(DEADLINE_MS);
  expect(second).toBeLessThan(DEADLINE_MS);
  door.open(null);
  await leave();
});

it.concurrent.for([
  ['by default', {}],
  // Shorter than the engine looks for an answer at the end: it is told that there was none in time.
  ['soon', { queryTimeout: '1s' }],
] as const)(
  "nothing answers, and statements of the host's wait on its own connections; the engine gives up %s",
  async ([, options], { expect }) => {
    const { bildad, closing, leave, proxy } = await boot(options);
    const { dataSource } = bildad;
    // Two connections; a third one is being made.
    await Promise.all([dataSource.query('SELECT 1'), dataSource.query('SELECT 1')]);
    proxy.blackhole();
    const asked = Promise.all(
      [1, 2, 3].map(() => expect(dataSource.query('SELECT 1')).rejects.toThrow()),
    );
    expect(await closing()).toBeLessThan(DEADLINE_MS);
    await asked;
    expect(dataSource.isInitialized).toBe(false);
    await leave();
  },
);

it.concurrent("the host's idle connections are dead, and new ones work", async ({ expect }) => {
  const { bildad, closing, leave, proxy } = await boot();
  const { master } = bildad.dataSource.driver as unknown as {
    master: pg.Pool;
  };
  const client = await master.connect();
  const { stream } = (client as unknown as { connection: { stream: Socket } }).connection;
  client.release();
  proxy.blackholeOld();
  expect(await closing()).toBeLessThan(DEADLINE_MS);
  // No goodbye on its way to nobody, which would keep the process from ending.
  expect(stream.destroyed).toBe(true);
  await leave();
});

it.concurrent('connections are refused', async ({ expect }) => {
  const { begin, bildad, closing, leave, proxy } = await boot();
  await begin();
  const lost = bildad.next('database.lost');
  await proxy.refuse();
  await lost;
  expect(await closing()).toBeLessThan(DEADLINE_MS);
  await leave();
});

it.concurrent(
  'backends are killed while it closes: what ran is given back all the same',
  async ({ expect }) => {
    const { begin, closing, database, leave } = await boot();
    const { door, job, run } = await begin({ deaf: true });
    job.signal.addEventListener('abort', () => {
      void database
        .sql(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()`,
        )
        .then(() => door.open('at last'));
    });
    expect(await closing()).toBeLessThan(DEADLINE_MS);
    expect(
      await database.sql('SELECT status FROM bildad.job_runs WHERE id = $1', [run.id]),
    ).toEqual([{ status: 'DONE' }]);
    await leave();
  },
);

let heard = 0;
@Injectable()
class Elsewhere {
  @OnJobEvent('node.joined', { from: 'cluster' })
  joined(): void {
    heard++;
  }
}

it.concurrent('nothing answers, and another node is to be told of events', async ({ expect }) => {
  const { bildad, closing, database, leave, proxy } = await boot({
    queryTimeout: '1m',
  });
  const other = await bootApp({ providers: [Elsewhere], database });
  const tell = () => bildad.events.emit('node.joined', { node: 'this one' });
  await expect
    .poll(() => {
      tell();
      return heard;
    })
    .toBeGreaterThan(0);
  proxy.blackhole();
  for (let n = 0; n < 10; n++) tell();
  // Two seconds for them.
  expect(await closing()).toBeLessThan(DEADLINE_MS + 2_000);
  await other.close();
  await leave();
});
