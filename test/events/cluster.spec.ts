import { Injectable } from '@nestjs/common';
import { OnJobEvent } from 'nestjs-bildad';
import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { startNode } from '../support/node.js';

// Events of other nodes: delivered at most once, to subscribers only, up to a fixed rate.

@Injectable()
class ClusterListener {
  received: string[] = [];
  enqueued = new Map<string, number>();

  @OnJobEvent('run.succeeded', { from: 'cluster', code: 'HEALTHY' })
  onSucceeded({ jobRunIdentifier }: { jobRunIdentifier: string }): void {
    this.received.push(jobRunIdentifier);
  }

  @OnJobEvent('entry.enqueued', { from: 'cluster' })
  onEnqueued({ jobRunIdentifier }: { jobRunIdentifier: string }): void {
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
const bootListener = () => boot({ providers: [ClusterListener], options: { role: 'producer' } });

it('a node receives the events of another process that its listeners subscribe to', async () => {
  const here = await bootListener();
  await database.sql('CREATE TABLE ledger (identifier text, run_id bigint, pid int)');
  const node = await startNode(database.url);
  try {
    const { received } = here.app.get(ClusterListener);
    await here.engine.enqueueJob('BUSY', { ms: 0 });
    const names: string[] = [];
    // The other node sends events only after it knows that a node subscribes.
    await expect
      .poll(async () => {
        const { jobRunIdentifier } = await here.engine.enqueueJob('HEALTHY', {});
        names.push(jobRunIdentifier);
        await here.engine.waitForJob(jobRunIdentifier);
        return received.length;
      })
      .toBeGreaterThan(1);
    await expect.poll(() => received).toContain(names.at(-1));
    expect(names).toEqual(expect.arrayContaining(received));
    expect(new Set(received).size).toBe(received.length);
  } finally {
    await node.terminate();
  }
});

it('a burst of events is sent up to the limit, each event once, and does not delay jobs', async () => {
  const here = await bootListener();
  const { enqueued } = here.app.get(ClusterListener);
  const far = await boot({
    providers: [SimpleJob],
    options: { tickInterval: '1h' },
  });
  const dropped: string[] = [];
  far.events.on('engine.error', ({ doing, error }) =>
    dropped.push(`${doing}: ${(error as Error).message}`),
  );
  const emitEvents = (from: number, count: number) => {
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
      emitEvents(from++, 1);
      return enqueued.size;
    })
    .toBeGreaterThan(0);
  emitEvents(from, 10_000);
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

it('a node sends no events without a subscriber, and ignores malformed messages', async () => {
  const app = await boot({
    providers: [SimpleJob],
    options: { tickInterval: 100 },
  });
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  const payloads: string[] = [];
  client.on('notification', ({ payload }) => payloads.push(payload ?? ''));
  await client.query('LISTEN "nestjs_bildad:bildad"');
  const { jobRunIdentifier } = await app.engine.enqueueJob(SimpleJob, {});
  await app.engine.waitForJob(jobRunIdentifier);
  const own = JSON.stringify({ topic: 'none' });
  await client.query('SELECT pg_notify($1, $2)', ['nestjs_bildad:bildad', own]);
  await expect.poll(() => payloads).toContain(own);
  expect(payloads.filter((one) => one.includes('events of'))).toEqual([]);
  // Malformed messages cause no failure.
  const malformed = [
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
      .map((message) => JSON.stringify({ topic: 'events of default', from: 'test', ...message })),
  ];
  for (const message of malformed)
    await client.query('SELECT pg_notify($1, $2)', ['nestjs_bildad:bildad', message]);
  const second = await app.engine.enqueueJob(SimpleJob, {});
  await app.engine.waitForJob(second.jobRunIdentifier);
  await client.end();
});
