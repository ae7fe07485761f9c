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

async function together(
  producer: Producer,
  jobs: number,
  inFlight: number,
): Promise<number[]> {
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
 * @param inBulk what is due at a tick is handed over in one call: for those that cannot commit so often
 */
export async function paced(
  producer: Producer,
  {
    perSecond,
    forMs,
    inBulk,
  }: { perSecond: number; forMs: number; inBulk: boolean },
): Promise<{ sent: Sent; keptUp: boolean }> {
  const sent: Sent = [];
  const calls: Promise<void>[] = [];
  let answered = 0;
  const send = async (jobs: Payload[]) => {
    for (const { n } of jobs) sent.push([n, now()]);
    await (inBulk
      ? producer.enqueueBulk(jobs)
      : Promise.all(jobs.map((job) => producer.enqueueOne(job))));
    answered += jobs.length;
  };
  const begin = now();
  const total = Math.round((forMs / 1000) * perSecond);
  while (sent.length < total) {
    const due = Math.min(total, ((now() - begin) / 1000) * perSecond);
    const jobs: Payload[] = [];
    while (sent.length + jobs.length < due)
      jobs.push(payload(PACED_FROM + sent.length + jobs.length));
    if (jobs.length > 0) calls.push(send(jobs));
    if (sent.length - answered > MOST_BEHIND * perSecond)
      return { sent, keptUp: false };
    await wait(TICK_MS);
  }
  await Promise.all(calls);
  return { sent, keptUp: true };
}
