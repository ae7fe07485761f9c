import { Injectable } from '@nestjs/common';
import { Interval, ScheduleModule, SchedulerRegistry } from '@nestjs/schedule';
import { JobEngineService, JobEvents } from 'nestjs-bildad';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootHost } from '../support/host.js';

// Bildad's timers live in the registry of @nestjs/schedule: the host's, if it has one. The host's own are left alone.

@Injectable()
class Beats {
  static beats = 0;

  @Interval('host beat', 100)
  beat(): void {
    Beats.beats++;
  }
}

let database: TestDatabase;
beforeEach(async () => {
  Beats.beats = 0;
  database = await createDatabase();
});
afterEach(() => database.drop());

/** With the engine ticking. */
const ticking = { tickInterval: 20 } as const;

/** A job that only a tick can have started. */
async function runsByItself(engine: JobEngineService): Promise<void> {
  const { jobRunIdentifier } = await engine.enqueueJob(SimpleJob, {});
  expect(await engine.waitForJob(jobRunIdentifier, { timeout: '10s' })).toMatchObject({
    result: 'SUCCEEDED',
  });
}

describe('a host with ScheduleModule', () => {
  it("has the engine's tick in its registry, by name, as long as it runs", async () => {
    const app = await bootHost({
      url: database.url,
      providers: [SimpleJob],
      imports: [ScheduleModule.forRoot()],
      bildad: ticking,
    });
    const registry = app.get(SchedulerRegistry, { strict: false });
    expect(registry.getIntervals()).toEqual(['bildad:bildad:default:tick']);
    expect(registry.getTimeouts()).toEqual([]);
    await runsByItself(app.get(JobEngineService));
    await app.close();
    expect(registry.getIntervals()).toEqual([]);
    expect(registry.getTimeouts()).toEqual([]);
  });

  it.each(['before', 'after'])(
    "its @Interval fires once per interval, with ScheduleModule %s Bildad's",
    async (order) => {
      const schedule = ScheduleModule.forRoot();
      class First {}
      const app = await bootHost({
        url: database.url,
        providers: [Beats],
        imports: order === 'after' ? [schedule] : [{ module: First, imports: [schedule] }],
        bildad: ticking,
      });
      const registry = app.get(SchedulerRegistry, { strict: false });
      // One timer is what makes it fire once: a second explorer would refuse the name, or double it.
      expect(registry.getIntervals().filter((name) => !name.startsWith('bildad:'))).toEqual([
        'host beat',
      ]);
      // Five beats of one timer lie four intervals apart; of two timers, two.
      const first = Beats.beats;
      const started = performance.now();
      await expect
        .poll(() => Beats.beats - first, { interval: 5, timeout: 10_000 })
        .toBeGreaterThanOrEqual(5);
      expect(performance.now() - started).toBeGreaterThan(390);
      await app.close();
    },
  );

  it('without a tick has no tick in its registry', async () => {
    const app = await bootHost({
      url: database.url,
      imports: [ScheduleModule.forRoot()],
      bildad: { tickInterval: false },
    });
    expect(app.get(SchedulerRegistry, { strict: false }).getIntervals()).toEqual([]);
    await app.close();
  });

  it('as a producer has none of the timers', async () => {
    const app = await bootHost({
      url: database.url,
      imports: [ScheduleModule.forRoot()],
      bildad: { role: 'producer' },
    });
    const registry = app.get(SchedulerRegistry, { strict: false });
    expect(registry.getIntervals()).toEqual([]);
    expect(registry.getTimeouts()).toEqual([]);
    await app.close();
  });
});

describe('a host without ScheduleModule', () => {
  it('ticks all the same', async () => {
    const app = await bootHost({
      url: database.url,
      providers: [SimpleJob],
      bildad: ticking,
    });
    await runsByItself(app.get(JobEngineService));
    await app.close();
  });

  it('has no @Interval of its own woken up by ours', async () => {
    const app = await bootHost({
      url: database.url,
      providers: [Beats],
      bildad: ticking,
    });
    let passes = 0;
    await new Promise<void>((resolve) => {
      app.get(JobEvents).on('engine.pass', () => {
        if (++passes === 10) resolve();
      });
    });
    expect(Beats.beats).toBe(0);
    await app.close();
  });
});
