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

// app.close() returns within its deadline for every failure of the database: drain, grace period,
// five seconds for the last outcomes, five for wake-ups, two for the connections.

const DRAIN_MS = 500;
const GRACE_MS = 100;
const DEADLINE_MS = DRAIN_MS + GRACE_MS + 5_000 + 5_000 + 2_000;

/**
 * Each test has its own database and proxy, because the tests run at the same time: each waits
 * as long as the engine waits for an unreachable database.
 */
async function boot(options: BildadModuleOptions = {}) {
  @BildadJob({ code: 'GATED', maxRetries: 3, timeout: '1h' })
  class OwnGatedJob {
    runJob({ ignoresAbort }: { ignoresAbort?: boolean }, job: JobExecution): Promise<unknown> {
      const door = gate<unknown>();
      arrived.open({ door, job });
      return ignoresAbort
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
    /** A job that runs until it is aborted, or until the test opens its gate. */
    begin: async (context: { ignoresAbort?: boolean } = {}) => {
      const run = await bildad.engine.enqueueAndRunJob(OwnGatedJob, context);
      return { run, ...(await arrived.opened) };
    },
    closing: async (): Promise<number> => {
      const from = performance.now();
      await bildad.app.close();
      return performance.now() - from;
    },
    cleanUp: async () => {
      await proxy.close();
      await database.drop();
    },
  };
}

interface Arrival {
  door: Gate<unknown>;
  job: JobExecution;
}

it.concurrent(
  'app.close() returns in time when the server stops responding',
  async ({ expect }) => {
    const { begin, closing, cleanUp, proxy } = await boot();
    await begin();
    proxy.blackhole();
    expect(await closing()).toBeLessThan(DEADLINE_MS);
    await cleanUp();
  },
);

it.concurrent(
  'two concurrent calls of app.close() return in time when the server stops responding and a handler ignores its signal',
  async ({ expect }) => {
    const { begin, closing, cleanUp, proxy } = await boot();
    const { door } = await begin({ ignoresAbort: true });
    proxy.blackhole();
    const [first, second] = await Promise.all([closing(), closing()]);
    expect(first).toBeLessThan(DEADLINE_MS);
    expect(second).toBeLessThan(DEADLINE_MS);
    door.open(null);
    await cleanUp();
  },
);

it.concurrent.for([
  ['is the default', {}],
  // Shorter than the engine's last wait for a response: the timeout of the statement ends that
  // wait.
  ['is 1s', { queryTimeout: '1s' }],
] as const)(
  "app.close() returns in time when the server stops responding and the host's statements wait; queryTimeout %s",
  async ([, options], { expect }) => {
    const { bildad, closing, cleanUp, proxy } = await boot(options);
    const { dataSource } = bildad;
    // Two connections are open, and a third is being opened.
    await Promise.all([dataSource.query('SELECT 1'), dataSource.query('SELECT 1')]);
    proxy.blackhole();
    const asked = Promise.all(
      [1, 2, 3].map(() => expect(dataSource.query('SELECT 1')).rejects.toThrow()),
    );
    expect(await closing()).toBeLessThan(DEADLINE_MS);
    await asked;
    expect(dataSource.isInitialized).toBe(false);
    await cleanUp();
  },
);

it.concurrent(
  'app.close() returns in time when idle host connections are dead and new ones work',
  async ({ expect }) => {
    const { bildad, closing, cleanUp, proxy } = await boot();
    const { master } = bildad.dataSource.driver as unknown as {
      master: pg.Pool;
    };
    const client = await master.connect();
    const { stream } = (client as unknown as { connection: { stream: Socket } }).connection;
    client.release();
    proxy.blackholeOpen();
    expect(await closing()).toBeLessThan(DEADLINE_MS);
    // The socket is destroyed. A Terminate message to a dead peer would keep the process from ending.
    expect(stream.destroyed).toBe(true);
    await cleanUp();
  },
);

it.concurrent('app.close() returns in time when connections are refused', async ({ expect }) => {
  const { begin, bildad, closing, cleanUp, proxy } = await boot();
  await begin();
  const lost = bildad.next('database.lost');
  await proxy.refuse();
  await lost;
  expect(await closing()).toBeLessThan(DEADLINE_MS);
  await cleanUp();
});

it.concurrent(
  'backends terminated during app.close(): the interrupted run is released anyway',
  async ({ expect }) => {
    const { begin, closing, database, cleanUp } = await boot();
    const { door, job, run } = await begin({ ignoresAbort: true });
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
    await cleanUp();
  },
);

let joinedEvents = 0;
@Injectable()
class ClusterListener {
  @OnJobEvent('node.joined', { from: 'cluster' })
  joined(): void {
    joinedEvents++;
  }
}

it.concurrent(
  'app.close() returns in time when the server stops responding and cluster events are pending',
  async ({ expect }) => {
    const { bildad, closing, database, cleanUp, proxy } = await boot({
      queryTimeout: '1m',
    });
    const other = await bootApp({ providers: [ClusterListener], database });
    const emitEvent = () => bildad.events.emit('node.joined', { node: 'this one' });
    await expect
      .poll(() => {
        emitEvent();
        return joinedEvents;
      })
      .toBeGreaterThan(0);
    proxy.blackhole();
    for (let n = 0; n < 10; n++) emitEvent();
    // Two seconds for the events.
    expect(await closing()).toBeLessThan(DEADLINE_MS + 2_000);
    await other.close();
    await cleanUp();
  },
);
