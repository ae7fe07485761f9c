import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel';
import { BildadJob, type RunTrace } from 'nestjs-bildad';
import { expect, it } from 'vitest';
import { bootApp } from '../support/app.js';

// Code without access to the injector receives the same events through node:diagnostics_channel.

const around = new AsyncLocalStorage<string>();

@BildadJob({ code: 'CHANNELLED', maxRetries: 0 })
class ChannelledJob {
  async runJob({ fail }: { fail?: boolean }): Promise<unknown> {
    await Promise.resolve();
    if (fail) throw new Error('no');
    return around.getStore();
  }
}

it('each event is published on its channel with the name of its engine', async () => {
  const app = await bootApp({ providers: [ChannelledJob] });
  const received: unknown[] = [];
  const receive = (message: unknown, name: string | symbol) => void received.push([name, message]);
  const names = ['bildad:entry.enqueued', 'bildad:run.finished'];
  for (const name of names) subscribe(name, receive);
  const { jobRunIdentifier } = await app.engine.enqueueAndRunJob(ChannelledJob, {});
  const { id } = await app.engine.waitForJob(jobRunIdentifier);
  for (const name of names) unsubscribe(name, receive);
  await app.engine.enqueueJob(ChannelledJob, {});
  await app.close();
  const engine = { engine: 'default', schema: 'bildad' };
  const job = { jobRunIdentifier, templateCode: 'CHANNELLED' };
  expect(received).toEqual([
    [names[0], { ...job, ...engine, jobQueueEntryId: expect.any(String) }],
    [
      names[1],
      {
        ...job,
        ...engine,
        jobRunId: id,
        retry: 0,
        outcome: 'completed',
        entry: 'removed',
      },
    ],
  ]);
});

it('the run channel binds a store for the handler and publishes the outcome', async () => {
  const app = await bootApp({ providers: [ChannelledJob] });
  const runs = tracingChannel<string, RunTrace>('bildad:run');
  const ends: (string | undefined)[] = [];
  const subscribers = {
    start: () => {},
    end: () => {},
    asyncStart: ({ outcome }: RunTrace) => void ends.push(outcome),
    asyncEnd: () => {},
    error: () => void ends.push('error'),
  };
  runs.start.bindStore(around, ({ jobRunIdentifier }) => jobRunIdentifier);
  runs.subscribe(subscribers);
  const first = await app.engine.enqueueAndRunJob(ChannelledJob, {});
  const { output } = await app.engine.waitForJob(first.jobRunIdentifier);
  const second = await app.engine.enqueueAndRunJob(ChannelledJob, {
    fail: true,
  });
  await app.engine.waitForJob(second.jobRunIdentifier);
  runs.unsubscribe(subscribers);
  runs.start.unbindStore(around);
  await app.close();
  expect(output).toBe(first.jobRunIdentifier);
  expect(ends).toEqual(['completed', 'failed']);
});
