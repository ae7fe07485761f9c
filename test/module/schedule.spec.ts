import { Injectable } from '@nestjs/common';
import { Interval, ScheduleModule, SchedulerRegistry } from '@nestjs/schedule';
import { JobEngineService, JobEvents } from 'nestjs-bildad';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { bootHost } from '../support/host.js';

// Bildad's timers are in the SchedulerRegistry of @nestjs/schedule: the host's, if the host has
// one. The host's own timers are not touched.

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

/** Options with an engine that ticks. */
const tickingOptions = { tickInterval: 20 } as const;

/** Runs a job that only a tick can start. */
async function expectRunByTick(engine: JobEngineService): Promise<void> {
  const { jobRunIdentifier } = await engine.enqueueJob(SimpleJob, {});
  expect(await engine.waitForJob(jobRunIdentifier, { timeout: '10s' })).toMatchObject({
    result: 'SUCCEEDED',
  });
}

describe('a host with ScheduleModule', () => {
  it("the engine's tick is in the host's registry by name while the engine runs", async () => {
    const app = await bootHost({
      url: database.url,
      providers: [SimpleJob],
      imports: [ScheduleModule.forRoot()],
      bildad: tickingOptions,
    });
    const registry = app.get(SchedulerRegistry, { strict: false });
    expect(registry.getIntervals()).toEqual(['bildad:bildad:default:tick']);
    expect(registry.getTimeouts()).toEqual([]);
    await expectRunByTick(app.get(JobEngineService));
    await app.close();
    expect(registry.getIntervals()).toEqual([]);
    expect(registry.getTimeouts()).toEqual([]);
  });

  it.each(['before', 'after'])(
    "the host's @Interval fires once per interval, with ScheduleModule %s Bildad's",
    async (order) => {
      const schedule = ScheduleModule.forRoot();
      class First {}
      const app = await bootHost({
        url: database.url,
        providers: [Beats],
        imports: order === 'after' ? [schedule] : [{ module: First, imports: [schedule] }],
        bildad: tickingOptions,
      });
      const registry = app.get(SchedulerRegistry, { strict: false });
      // There is one timer. A second explorer would reject the name or add a second timer.
      expect(registry.getIntervals().filter((name) => !name.startsWith('bildad:'))).toEqual([
        'host beat',
      ]);
      // Five calls of one timer are four intervals apart; of two timers, two.
      const first = Beats.beats;
      const started = performance.now();
      await expect
        .poll(() => Beats.beats - first, { interval: 5, timeout: 10_000 })
        .toBeGreaterThanOrEqual(5);
      expect(performance.now() - started).toBeGreaterThan(390);
      await app.close();
    },
  );

  it('an engine without a tick has no tick in the registry', async () => {
    const app = await bootHost({
      url: database.url,
      imports: [ScheduleModule.forRoot()],
      bildad: { tickInterval: false },
    });
    expect(app.get(SchedulerRegistry, { strict: false }).getIntervals()).toEqual([]);
    await app.close();
  });

  it('a producer has no timers in the registry', async () => {
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
  it("the engine ticks without a host's ScheduleModule", async () => {
    const app = await bootHost({
      url: database.url,
      providers: [SimpleJob],
      bildad: tickingOptions,
    });
    await expectRunByTick(app.get(JobEngineService));
    await app.close();
  });

  it("a host's @Interval does not run because of Bildad's schedule module", async () => {
    const app = await bootHost({
      url: database.url,
      providers: [Beats],
      bildad: tickingOptions,
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
