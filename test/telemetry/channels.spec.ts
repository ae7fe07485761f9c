import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel';
import { BildadJob, type RunTrace } from 'nestjs-bildad';
import { expect, it } from 'vitest';
import { bootApp } from '../support/app.js';

// Who cannot inject hears the same through node:diagnostics_channel.

const around = new AsyncLocalStorage<string>();

@BildadJob({ code: 'CHANNELLED', maxRetries: 0 })
class ChannelledJob {
  async runJob({ fail }: { fail?: boolean }): Promise<unknown> {
    await Promise.resolve();
    if (fail) throw new Error('no');
    return around.getStore();
  }
}

it('events, each on its channel, with the name of their engine', async () => {
  const app = await bootApp({ providers: [ChannelledJob] });
  const heard: unknown[] = [];
  const hear = (message: unknown, name: string | symbol) => void heard.push([name, message]);
  const names = ['bildad:entry.enqueued', 'bildad:run.finished'];
  for (const name of names) subscribe(name, hear);
  const { jobRunIdentifier } = await app.engine.enqueueAndRunJob(ChannelledJob, {});
  const { id } = await app.engine.waitForJob(jobRunIdentifier);
  for (const name of names) unsubscribe(name, hear);
  await app.engine.enqueueJob(ChannelledJob, {});
  await app.close();
  const teller = { engine: 'default', schema: 'bildad' };
  const job = { jobRunIdentifier, templateCode: 'CHANNELLED' };
  expect(heard).toEqual([
    [names[0], { ...job, ...teller, jobQueueEntryId: expect.any(String) }],
    [
      names[1],
      {
        ...job,
        ...teller,
        jobRunId: id,
        retry: 0,
        outcome: 'completed',
        entry: 'removed',
      },
    ],
  ]);
});

it('runs: what is bound to their start is there for the handler, and their end says how they ended', async () => {
  const app = await bootApp({ providers: [ChannelledJob] });
  const runs = tracingChannel<string, RunTrace>('bildad:run');
  const ends: (string | undefined)[] = [];
  const hears = {
    start: () => {},
    end: () => {},
    asyncStart: ({ outcome }: RunTrace) => void ends.push(outcome),
    asyncEnd: () => {},
    error: () => void ends.push('error'),
  };
  runs.start.bindStore(around, ({ jobRunIdentifier }) => jobRunIdentifier);
  runs.subscribe(hears);
  const first = await app.engine.enqueueAndRunJob(ChannelledJob, {});
  const { output } = await app.engine.waitForJob(first.jobRunIdentifier);
  const second = await app.engine.enqueueAndRunJob(ChannelledJob, {
    fail: true,
  });
  await app.engine.waitForJob(second.jobRunIdentifier);
  runs.unsubscribe(hears);
  runs.start.unbindStore(around);
  await app.close();
  expect(output).toBe(first.jobRunIdentifier);
  expect(ends).toEqual(['completed', 'failed']);
});
