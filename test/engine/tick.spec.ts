import { ScheduleModule, SchedulerRegistry } from '@nestjs/schedule';
import { expect, it } from 'vitest';
import { bootApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

it('ticks start jobs by priority and age, refill free slots and start scheduled jobs', async () => {
  const bildad = await bootApp({
    providers: [SimpleJob],
    options: { tickInterval: 20, concurrency: 1 },
  });
  try {
    const { engine, events, sql } = bildad;
    const order: string[] = [];
    events.on('run.started', ({ jobRunIdentifier }) => void order.push(jobRunIdentifier));
    // One transaction, so that each tick sees all or none of the jobs.
    await bildad.dataSource.transaction(async (manager) => {
      for (const [jobRunIdentifier, priority] of [
        ['low', 9],
        ['first', 5],
        ['second', 5],
        ['high', 1],
      ] as const)
        await engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier, priority, manager });
    });
    await engine.waitForJob('low');
    expect(order).toEqual(['high', 'first', 'second', 'low']);

    const later = await engine.enqueueJob(SimpleJob, {}, { delay: '1h' });
    expect(later).toMatchObject({ scheduled: true, status: 'AVAILABLE' });
    await sql(`UPDATE bildad.job_queue_entries SET run_at = clock_timestamp() WHERE id = $1`, [
      later.id,
    ]);
    expect(await engine.waitForJob(later.jobRunIdentifier)).toMatchObject({
      result: 'SUCCEEDED',
    });
  } finally {
    await bildad.close();
  }
});

it("the tick is registered in the host's SchedulerRegistry and removed at close", async () => {
  const bildad = await bootApp({
    providers: [SimpleJob],
    imports: [ScheduleModule.forRoot()],
    options: { tickInterval: '1h' },
  });
  const registry = bildad.app.get(SchedulerRegistry);
  expect(registry.getIntervals()).toEqual(['bildad:bildad:default:tick']);
  expect(registry.getTimeouts()).toEqual([]);
  await bildad.close();
  expect(registry.getIntervals()).toEqual([]);
});

it('a failed tick is reported, and the next one works', async () => {
  const bildad = await bootApp({
    providers: [SimpleJob],
    options: { tickInterval: 20 },
  });
  try {
    const failed = bildad.next('engine.error');
    await bildad.sql('ALTER TABLE bildad.job_runs RENAME TO gone');
    expect(await failed).toMatchObject({
      doing: expect.stringContaining('a pass of the engine') as string,
    });
    await bildad.sql('ALTER TABLE bildad.gone RENAME TO job_runs');
    const entry = await bildad.engine.enqueueJob(SimpleJob, { say: 'well' });
    expect(await bildad.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      output: 'well',
    });
  } finally {
    await bildad.close();
  }
});
