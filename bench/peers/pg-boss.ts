/**
 * `default` is its README: one job per poll, a poll every two seconds. `tuned`: batches of 500 for two workers that
 * fetch again at once while batches are full, and NOTIFY for what comes when they are idle.
 */
import { PgBoss } from 'pg-boss';
import { setTimeout as wait } from 'node:timers/promises';
import { ASK_EVERY_MS, inParts, within } from './parts.js';
import type { Adapter, Payload, Target } from '../adapter.js';

const QUEUE = 'noop';

async function start({ url, config }: Target): Promise<PgBoss> {
  const boss = new PgBoss({
    connectionString: url,
    ...(config === 'tuned' ? { useListenNotify: true, max: 20 } : {}),
  });
  boss.on('error', console.error);
  return boss.start();
}

export const adapter: Adapter = {
  async prepare(target) {
    const boss = await start(target);
    await boss.createQueue(QUEUE, { notify: target.config === 'tuned' });
    await boss.stop({ graceful: false });
  },

  async produce(target) {
    const boss = await start(target);
    const inTransaction = within(target.url);
    return {
      enqueueOne: (payload) => boss.send(QUEUE, payload),
      enqueueWithin: (payload) =>
        inTransaction(payload, (client) =>
          boss.send(QUEUE, payload, {
            db: {
              executeSql: (text, values) => client.query(text, values),
            },
          }),
        ),
      // It does not announce ends: the benchmark polls.
      untilDone: async (payload) => {
        const id = (await boss.send(QUEUE, payload))!;
        for (;;) {
          const job = await boss.getJobById(QUEUE, id);
          if (job?.state === 'completed') return;
          await wait(ASK_EVERY_MS);
        }
      },
      enqueueBulk: (payloads) =>
        inParts(payloads, target.config === 'tuned', (part) =>
          boss.insert(
            QUEUE,
            part.map((data) => ({ data })),
          ),
        ),
    };
  },

  async work(target, onJob) {
    const boss = await start(target);
    const handler = async (jobs: { data: Payload }[]) => {
      for (const { data } of jobs) onJob(data);
    };
    return target.config === 'tuned'
      ? boss.work<Payload>(
          QUEUE,
          {
            batchSize: 500,
            localConcurrency: 2,
            burstWhenBatchFull: true,
            pollingIntervalSeconds: 0.5,
          },
          handler,
        )
      : boss.work<Payload>(QUEUE, handler);
  },

  unfinished: `SELECT EXISTS (SELECT FROM pgboss.job WHERE name = '${QUEUE}' AND state < 'completed')`,
};
