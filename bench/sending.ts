/** The ways in which a producer is asked to enqueue. */
import { setTimeout as wait } from 'node:timers/promises';
import type { Moment, Payload, Producer } from './adapter.js';
import { cpuMs, now } from './clock.js';
import { percentile } from './statistics.js';

export const payload = (n: number): Payload => ({ n, text: 'x'.repeat(80) });

/** What was sent when: by number of the job, before the call. */
export type Sent = [n: number, at: Moment][];

const WARM_UP = 200;
const TICK_MS = 3;
const BULK_CALLS = 2;
/** Numbers that no other way of sending uses. */
const PACED_FROM = 1_000_000;
/** Seconds of calls that may be unanswered before we say that it cannot keep up. */
const MOST_BEHIND = 2;

export async function enqueueOneByOne(
  producer: Producer,
  { jobs, inFlight }: { jobs: number; inFlight: number },
) {
  await together(producer, WARM_UP, inFlight);
  const [begin, cpuBefore] = [now(), cpuMs()];
  const took = await together(producer, jobs, inFlight);
  return {
    ms: now() - begin,
    cpuMs: cpuMs() - cpuBefore,
    p50: percentile(took, 0.5),
    p99: percentile(took, 0.99),
  };
}

/** The same, each in a transaction with a row of the caller's. */
export function enqueueWithin(producer: Producer, asked: { jobs: number; inFlight: number }) {
  const enqueueOne = (job: Payload) => {
    if (!producer.enqueueWithin) throw new Error('it has no transactions');
    return producer.enqueueWithin(job);
  };
  return enqueueOneByOne({ ...producer, enqueueOne }, asked);
}

/** One job after another, each until it is over. @returns how long each took */
export async function untilDone(
  producer: Producer,
  { jobs, pauseMs: [from, to] }: { jobs: number; pauseMs: [number, number] },
): Promise<number[]> {
  if (!producer.untilDone) throw new Error('it cannot wait');
  const took: number[] = [];
  for (let n = 0; n < jobs; n++) {
    await wait(from + Math.random() * (to - from));
    const begin = now();
    await producer.untilDone(payload(n));
    took.push(now() - begin);
  }
  return took;
}

async function together(producer: Producer, jobs: number, inFlight: number): Promise<number[]> {
  const took: number[] = [];
  let sent = 0;
  const caller = async () => {
    while (sent < jobs) {
      const begin = now();
      await producer.enqueueOne(payload(sent++));
      took.push(now() - begin);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, caller));
  return took;
}

/** One job at a time, with a pause of a random length in between, so that the worker is idle at each. */
export async function singly(
  producer: Producer,
  { jobs, pauseMs: [from, to] }: { jobs: number; pauseMs: [number, number] },
): Promise<Sent> {
  const sent: Sent = [];
  for (let n = 0; n < jobs; n++) {
    await wait(from + Math.random() * (to - from));
    sent.push([n, now()]);
    await producer.enqueueOne(payload(n));
  }
  return sent;
}

/**
 * So many per second, whether or not the earlier ones are answered.
 * @param inBulk for engines that cannot commit so often: due jobs are sent in bulk calls, of which two may be
 *   in flight; jobs that become due meanwhile are sent with the next
 */
export async function paced(
  producer: Producer,
  { perSecond, forMs, inBulk }: { perSecond: number; forMs: number; inBulk: boolean },
): Promise<{ sent: Sent; keptUp: boolean }> {
  const sent: Sent = [];
  const calls = new Set<Promise<unknown>>();
  let waiting: Payload[] = [];
  let failure: unknown;
  let unanswered = 0;
  const call = (jobs: Payload[], enqueue: () => Promise<unknown>) => {
    const made = enqueue()
      .catch((error: unknown) => (failure ??= error))
      .finally(() => {
        calls.delete(made);
        unanswered -= jobs.length;
      });
    calls.add(made);
  };
  const begin = now();
  const total = Math.round((forMs / 1000) * perSecond);
  while (sent.length < total || waiting.length > 0) {
    const due = Math.min(total, ((now() - begin) / 1000) * perSecond);
    while (sent.length < due) {
      const job = payload(PACED_FROM + sent.length);
      sent.push([job.n, now()]);
      unanswered++;
      if (inBulk) waiting.push(job);
      else call([job], () => producer.enqueueOne(job));
    }
    if (waiting.length > 0 && calls.size < BULK_CALLS) {
      const jobs = waiting;
      waiting = [];
      call(jobs, () => producer.enqueueBulk(jobs));
    }
    if (failure) throw failure;
    if (unanswered > MOST_BEHIND * perSecond) return { sent, keptUp: false };
    await wait(TICK_MS);
  }
  await Promise.all(calls);
  if (failure) throw failure;
  return { sent, keptUp: true };
}
