import { Injectable } from '@nestjs/common';
import { OnJobEvent } from 'nestjs-bildad';
import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { startNode } from '../support/node.js';

// Events of other nodes, for who asks: at most once, and never more than there is room for.

@Injectable()
class OfCluster {
  heard: string[] = [];
  enqueued = new Map<string, number>();

  @OnJobEvent('run.succeeded', { from: 'cluster', code: 'HEALTHY' })
  over({ jobRunIdentifier }: { jobRunIdentifier: string }): void {
    this.heard.push(jobRunIdentifier);
  }

  @OnJobEvent('entry.enqueued', { from: 'cluster' })
  added({ jobRunIdentifier }: { jobRunIdentifier: string }): void {
    const times = this.enqueued.get(jobRunIdentifier) ?? 0;
    this.enqueued.set(jobRunIdentifier, times + 1);
  }
}

let database: TestDatabase;
const apps: TestApp[] = [];
beforeEach(async () => {
  database = await createDatabase();
});
afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.close()));
  await database.drop();
});

async function boot(options: Parameters<typeof bootApp>[0] = {}): Promise<TestApp> {
  const app = await bootApp({ database, ...options });
  apps.push(app);
  return app;
}
const listening = () => boot({ providers: [OfCluster], options: { role: 'producer' } });

it('what another process does is heard here, of the jobs that are asked for', async () => {
  const here = await listening();
  await database.sql('CREATE TABLE ledger (identifier text, run_id bigint, pid int)');
  const node = await startNode(database.url);
  try {
    const { heard } = here.app.get(OfCluster);
    await here.engine.enqueueJob('BUSY', { ms: 0 });
    const names: string[] = [];
    // Not before the other node knows that somebody listens.
    await expect
      .poll(async () => {
        const { jobRunIdentifier } = await here.engine.enqueueJob('HEALTHY', {});
        names.push(jobRunIdentifier);
        await here.engine.waitForJob(jobRunIdentifier);
        return heard.length;
      })
      .toBeGreaterThan(1);
    await expect.poll(() => heard).toContain(names.at(-1));
    expect(names).toEqual(expect.arrayContaining(heard));
    expect(new Set(heard).size).toBe(heard.length);
  } finally {
    await node.terminate();
  }
});

it('a storm is told as far as there is room, once each, and no job waits for it', async () => {
  const here = await listening();
  const { enqueued } = here.app.get(OfCluster);
  const far = await boot({
    providers: [SimpleJob],
    options: { tickInterval: '1h' },
  });
  const dropped: string[] = [];
  far.events.on('engine.error', ({ doing, error }) =>
    dropped.push(`${doing}: ${(error as Error).message}`),
  );
  const tell = (from: number, count: number) => {
    for (let n = from; n < from + count; n++)
      far.events.emit('entry.enqueued', {
        jobQueueEntryId: '1',
        jobRunIdentifier: `number ${n}`,
        templateCode: 'SIMPLE',
      });
  };
  let from = 0;
  await expect
    .poll(() => {
      tell(from++, 1);
      return enqueued.size;
    })
    .toBeGreaterThan(0);
  tell(from, 10_000);
  const began = performance.now();
  const { jobRunIdentifier } = await far.engine.enqueueAndRunJob(SimpleJob, {});
  await far.engine.waitForJob(jobRunIdentifier);
  expect(performance.now() - began).toBeLessThan(2_000);
  await expect.poll(() => enqueued.size).toBeGreaterThan(1_900);
  await expect
    .poll(() => dropped)
    .toEqual([
      expect.stringMatching(
        /^sending events to other nodes: \d+ notifications were dropped: too many, or too long$/,
      ),
    ]);
  expect(Math.max(...enqueued.values())).toBe(1);
});

it('where nobody asks, nothing is told', async () => {
  const app = await boot({
    providers: [SimpleJob],
    options: { tickInterval: 100 },
  });
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  const told: string[] = [];
  client.on('notification', ({ payload }) => told.push(payload ?? ''));
  await client.query('LISTEN "nestjs_bildad:bildad"');
  const { jobRunIdentifier } = await app.engine.enqueueJob(SimpleJob, {});
  await app.engine.waitForJob(jobRunIdentifier);
  const own = JSON.stringify({ topic: 'none' });
  await client.query('SELECT pg_notify($1, $2)', ['nestjs_bildad:bildad', own]);
  await expect.poll(() => told).toContain(own);
  expect(told.filter((one) => one.includes('events of'))).toEqual([]);
  // What is no message of ours harms nobody.
  const odds = [
    '',
    '{',
    'null',
    '7',
    '{}',
    ...[
      undefined,
      7,
      [7],
      [[7]],
      [['run.finished', 7]],
      [['__proto__', null]],
      ['run.finished'],
      ['__proto__ '],
      [''],
    ]
      .flatMap((list) => [{ interest: list }, { items: list }])
      .map((odd) => JSON.stringify({ topic: 'events of default', from: 'test', ...odd })),
  ];
  for (const odd of odds)
    await client.query('SELECT pg_notify($1, $2)', ['nestjs_bildad:bildad', odd]);
  const again = await app.engine.enqueueJob(SimpleJob, {});
  await app.engine.waitForJob(again.jobRunIdentifier);
  await client.end();
});
