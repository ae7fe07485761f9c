/**
 * A process of one peer for the lab's comparison (test/faults/peers): a worker or a producer, by its
 * documentation's defaults. Says in a file what its handlers do, and closes on SIGTERM as the documentation has it.
 */
import { openSync, writeSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { createPostgresBackend, Queue, Worker, type Job } from 'bullmq';
import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import { PgBoss } from 'pg-boss';

interface Task {
  id: string;
  ms: number;
}

interface Peer {
  /** Makes the schema, and is ready to enqueue. */
  produce(url: string): Promise<(task: Task) => Promise<unknown>>;
  /** @returns how to close it */
  work(url: string, handle: (task: Task) => Promise<void>): Promise<() => Promise<unknown>>;
}

const NAME = 'faults';
/** As many jobs at once as the others. */
const CONCURRENCY = 5;
const quiet = new Logger(() => () => {});

const PEERS: Record<string, Peer> = {
  'pg-boss': {
    async produce(url) {
      const boss = await started(url);
      await boss.createQueue(NAME);
      return (task) => boss.send(NAME, task);
    },
    async work(url, handle) {
      const boss = await started(url);
      await boss.work<Task>(NAME, { localConcurrency: CONCURRENCY }, async (jobs) => {
        for (const { data } of jobs) await handle(data);
      });
      return () => boss.stop();
    },
  },

  'graphile-worker': {
    async produce(url) {
      const utils = await makeWorkerUtils({
        connectionString: url,
        logger: quiet,
      });
      await utils.migrate();
      return (task) => utils.addJob(NAME, task);
    },
    async work(url, handle) {
      const runner = await run({
        connectionString: url,
        logger: quiet,
        concurrency: CONCURRENCY,
        noHandleSignals: true,
        taskList: { [NAME]: (payload) => handle(payload as Task) },
      });
      return () => runner.stop();
    },
  },

  bullmq: {
    async produce(url) {
      const queue = new Queue(
        NAME,
        { connection: { connectionString: url, migrate: true } },
        createPostgresBackend,
      );
      queue.on('error', () => undefined);
      await queue.waitUntilReady();
      return (task) => queue.add(NAME, task, { attempts: 4 });
    },
    async work(url, handle) {
      const worker = new Worker(
        NAME,
        ({ data }: Job<Task>) => handle(data),
        {
          connection: { connectionString: url },
          concurrency: CONCURRENCY,
        },
        createPostgresBackend,
      );
      worker.on('error', () => undefined);
      await worker.waitUntilReady();
      return () => worker.close();
    },
  },
};

async function started(url: string): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: url });
  boss.on('error', () => undefined);
  await boss.start();
  return boss;
}

const [, , name, role] = process.argv;
const peer = PEERS[name!]!;
const url = process.env['DATABASE_URL']!;
const ledger = openSync(process.env['LAB_LEDGER']!, 'a');
const say = (what: string, id: string) =>
  writeSync(
    ledger,
    `${JSON.stringify({ at: Number(process.hrtime.bigint()) / 1e6, what, id, pid: process.pid })}\n`,
  );

if (role === 'produce') {
  const send = await peer.produce(url);
  process.on('message', (task: Task) => {
    void send(task).then(
      () => process.send!({ sent: task.id }),
      (error: unknown) => process.send!({ failed: String(error) }),
    );
  });
} else {
  const close = await peer.work(url, async ({ id, ms }) => {
    say('start', id);
    await wait(ms);
    say('end', id);
  });
  process.on('SIGTERM', () => {
    void close().then(() => process.exit(0));
  });
}
process.on('disconnect', () => process.exit());
process.send!({ ready: true });
