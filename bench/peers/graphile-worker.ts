/**
 * `default` is the quickstart of its documentation (worker.graphile.org/docs/library), `tuned` its performance
 * page at full: jobs fetched 1,000 at a time into a local queue, completions shared. Its log line per job is
 * silenced in both.
 */
import { Logger, makeWorkerUtils, run, type WorkerUtils } from 'graphile-worker';
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import { ASK_EVERY_MS, inParts, within } from './parts.js';
import type { Adapter, Payload, Target } from '../adapter.js';

const TASK = 'noop';
const logger = new Logger(() => () => {});

const tuned = (connectionString: string) => ({
  worker: {
    connectionString,
    logger,
    concurrentJobs: 100,
    maxPoolSize: 10,
    localQueue: { size: 1000 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
});

const utils = ({ url, config }: Target): Promise<WorkerUtils> =>
  makeWorkerUtils(
    config === 'tuned'
      ? {
          preset: {
            worker: { connectionString: url, logger, maxPoolSize: 20 },
          },
        }
      : { connectionString: url, logger },
  );

export const adapter: Adapter = {
  async prepare(target) {
    const made = await utils(target);
    await made.migrate();
    await made.release();
  },

  async produce(target) {
    const made = await utils(target);
    const inTransaction = within(target.url);
    const pool = new pg.Pool({ connectionString: target.url, max: 10 });
    return {
      // As its documentation has it: by its SQL function.
      enqueueWithin: (payload) =>
        inTransaction(payload, (client) =>
          client.query('SELECT graphile_worker.add_job($1, payload := $2)', [
            TASK,
            JSON.stringify(payload),
          ]),
        ),
      // It does not announce ends and stores no finished jobs: the benchmark polls until the job is deleted.
      untilDone: async (payload) => {
        const { id } = await made.addJob(TASK, payload);
        for (;;) {
          const { rows } = await pool.query(
            'SELECT FROM graphile_worker._private_jobs WHERE id = $1',
            [id],
          );
          if (rows.length === 0) return;
          await wait(ASK_EVERY_MS);
        }
      },
      enqueueOne: (payload) => made.addJob(TASK, payload),
      enqueueBulk: (payloads) =>
        inParts(payloads, target.config === 'tuned', (part) =>
          made.addJobs(part.map((payload) => ({ identifier: TASK, payload }))),
        ),
    };
  },

  work({ url, config }, onJob) {
    const taskList = {
      [TASK]: (payload: unknown) => onJob(payload as Payload),
    };
    return config === 'tuned'
      ? run({ preset: tuned(url), taskList, noHandleSignals: true })
      : run({
          connectionString: url,
          logger,
          concurrency: 5,
          pollInterval: 1000,
          taskList,
        });
  },

  unfinished: 'SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)',
};
