import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { CoalescedTask } from '../../src/concurrency/coalesced-task.js';
import { Semaphore, SemaphoreTimeoutError } from '../../src/concurrency/semaphore.js';
import { gate } from '../support/gate.js';

describe('CoalescedTask', () => {
  it('runs once for all requests of a turn, and once more for requests during the run', async () => {
    const gates = [gate(), gate()];
    let runs = 0;
    let atOnce = 0;
    const task = new CoalescedTask(
      async () => {
        expect(++atOnce).toBe(1);
        await gates[runs++]!.opened;
        atOnce--;
      },
      (error) => expect.unreachable(String(error)),
    );
    task.request();
    task.request();
    await nextTurn();
    expect(runs).toBe(1);
    task.request();
    task.request();
    for (const one of gates) one.open();
    await task.idle();
    expect(runs).toBe(2);
    expect(task.isRunning).toBe(false);
  });

  it('loses no request, at whichever microtask it comes', async () => {
    for (let gap = 0; gap < 40; gap++) {
      let wanted = 0;
      let done = 0;
      const task = new CoalescedTask(
        async () => {
          const now = wanted;
          await Promise.resolve();
          done = now;
        },
        () => undefined,
      );
      wanted = 1;
      task.request();
      for (let turn = 0; turn < gap; turn++) await Promise.resolve();
      wanted = 2;
      task.request();
      await nextTurn();
      expect({ gap, done }).toEqual({ gap, done: 2 });
    }
  });

  it('reports an error, and runs again', async () => {
    const errors: unknown[] = [];
    let runs = 0;
    const task = new CoalescedTask(
      async () => {
        if (++runs === 1) throw new Error('first');
      },
      (error) => errors.push(error),
    );
    await task.join();
    await task.join();
    expect({ runs, errors }).toEqual({ runs: 2, errors: [new Error('first')] });
  });

  it('serves several delayed requests with one run at the earliest time', async () => {
    let runs = 0;
    const task = new CoalescedTask(
      async () => void runs++,
      () => undefined,
    );
    task.request(60_000);
    task.request(5);
    await expect.poll(() => runs, { interval: 5 }).toBe(1);
    task.request(60_000);
    task.request();
    await task.idle();
    expect(runs).toBe(2);
    await task.stop();
  });

  it('keeps a delayed request that comes during a run', async () => {
    const open = gate();
    let runs = 0;
    const task = new CoalescedTask(
      async () => {
        if (++runs === 1) await open.opened;
      },
      () => undefined,
    );
    task.request();
    await nextTurn();
    task.request(5);
    open.open();
    await expect.poll(() => runs, { interval: 5 }).toBe(2);
  });

  it('stops after the current run', async () => {
    const open = gate();
    let runs = 0;
    const task = new CoalescedTask(
      async () => {
        runs++;
        await open.opened;
      },
      () => undefined,
    );
    task.request();
    await nextTurn();
    task.request();
    const stopped = task.stop();
    task.request();
    open.open();
    await stopped;
    await nextTurn();
    expect(runs).toBe(1);
  });
});

describe('Semaphore', () => {
  it('runs as many tasks as it has permits, the others in order', async () => {
    const semaphore = new Semaphore(2);
    const gates = [0, 1, 2, 3].map(() => gate());
    const started: number[] = [];
    const runs = gates.map(({ opened }, n) =>
      semaphore.run(async () => {
        started.push(n);
        await opened;
      }),
    );
    await nextTurn();
    expect(started).toEqual([0, 1]);
    gates[1]!.open();
    await runs[1];
    await nextTurn();
    expect(started).toEqual([0, 1, 2]);
    for (const one of gates) one.open();
    await Promise.all(runs);
    expect(started).toEqual([0, 1, 2, 3]);
  });

  it('rejects a task that waits for too long and frees its place in the line', async () => {
    const semaphore = new Semaphore(1);
    const open = gate();
    const first = semaphore.run(() => open.opened);
    await expect(semaphore.run(async () => 'late', 10)).rejects.toThrow(SemaphoreTimeoutError);
    const third = semaphore.run(async () => 'third', 10_000);
    open.open();
    await first;
    expect(await third).toBe('third');
    expect(await semaphore.run(async () => 'free')).toBe('free');
  });
});
