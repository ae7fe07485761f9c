/**
 * The program of every child process: loads one adapter (its argument), is one of its producers or workers, and
 * does what the parent asks. Lives as long as its parent.
 */
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import type { Adapter, Moment, Producer, Target } from './adapter.js';
import { cpuMs, now } from './clock.js';
import { enqueueOneByOne, enqueueWithin, paced, payload, singly, untilDone } from './sending.js';
import { Tally } from './tally.js';

const { adapter } = (await import(process.argv[2]!)) as { adapter: Adapter };

let target: Target;
let producer: Producer | undefined;
let tally: Tally | undefined;

type Asked<Way extends (producer: Producer, asked: never) => unknown> = Parameters<Way>[1];

const commands = {
  /** Before everything else. */
  async aim(at: Target): Promise<void> {
    target = at;
  },

  prepare: () => adapter.prepare(target),

  async produce(): Promise<void> {
    producer = await adapter.produce(target);
  },

  /** @returns milliseconds */
  async enqueueBulk({ jobs }: { jobs: number }): Promise<number> {
    const payloads = Array.from({ length: jobs }, (_none, n) => payload(n));
    const begin = now();
    await producer!.enqueueBulk(payloads);
    return now() - begin;
  },

  enqueueOneByOne: (asked: Asked<typeof enqueueOneByOne>) => enqueueOneByOne(producer!, asked),

  enqueueWithin: (asked: Asked<typeof enqueueWithin>) => enqueueWithin(producer!, asked),

  untilDone: (asked: Asked<typeof untilDone>) => untilDone(producer!, asked),

  singly: (asked: Asked<typeof singly>) => singly(producer!, asked),

  paced: (asked: Asked<typeof paced>) => paced(producer!, asked),

  async work({ keepsArrivals = false }): Promise<void> {
    tally = new Tally((jobs) => process.send!({ progress: jobs }), keepsArrivals);
    await adapter.work(target, tally.onJob);
  },

  /** Looks until the ends of all jobs are recorded. */
  async settle(): Promise<Moment> {
    const { unfinished } = adapter;
    if (typeof unfinished === 'function') {
      while (await unfinished(target)) await wait(2);
      return now();
    }
    const client = new pg.Client(target.url);
    await client.connect();
    for (;;) {
      const { rows } = await client.query<[boolean]>({
        text: unfinished,
        rowMode: 'array',
      });
      if (!rows[0]![0]) break;
      await wait(2);
    }
    const settled = now();
    await client.end();
    return settled;
  },

  worked() {
    const { jobs, begin, cpuBefore, milestones, arrivals } = tally!;
    return { jobs, begin, cpuMs: cpuMs() - cpuBefore, milestones, arrivals };
  },

  cpu: () => cpuMs(),

  memory: () => process.memoryUsage.rss(),
};

export type Commands = typeof commands;

interface Request {
  id: number;
  name: keyof Commands;
  asked: never;
}

process.on('message', ({ id, name, asked }: Request) => {
  void (async () => {
    try {
      process.send!({ id, result: await commands[name](asked) });
    } catch (error) {
      process.send!({ id, error: (error as Error).stack ?? String(error) });
    }
  })();
});
// The parent is gone, however it went.
process.on('disconnect', () => process.exit());
process.send!({ ready: true });
