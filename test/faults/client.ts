import 'reflect-metadata';
import { setTimeout as wait } from 'node:timers/promises';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadError,
  BildadModule,
  DuplicateJobError,
  JobEngineService,
  JobEvents,
} from 'nestjs-bildad';
import type { DataSource } from 'typeorm';
import { handlers } from './handlers.js';
import { Ledger, nowMs, recordStalls } from './ledger.js';
import { CALL_MS, setting } from './settings.js';
import { MAX_RETRIES, plannedJob, type PlannedJob, type Weights } from './workload.js';

// The clients of the lab, in a process of their own: one enqueues by itself, one in transactions, one under unique
// keys, and now and then there is a burst. What is not known to be enqueued is enqueued again under the same identifier.

const MOST_AT_ONCE = 40;
/** Calls under a key, beside the others. */
const KEYED_SHARE = 0.4;
const ledger = new Ledger(setting('LAB_LEDGERS'), setting('LAB_NAME'));
const seed = Number(setting('LAB_SEED'));
const load = JSON.parse(setting('LAB_LOAD')) as {
  perSecond: number;
  burst: number;
  mix: Weights;
  burstMix: Weights;
  priority?: number;
};
const { perSecond, burst, mix, burstMix } = load;

for (const event of ['unhandledRejection', 'uncaughtException'] as const)
  process.on(event, (error: unknown) => {
    ledger.write({
      what: 'fatal',
      error: `${event}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    });
    process.exit(70);
  });
process.on('disconnect', () => process.exit());

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: setting('DATABASE_URL'),
      autoLoadEntities: true,
      retryAttempts: 20,
      retryDelay: 250,
      connectTimeoutMS: 5_000,
    }),
    BildadModule.forRoot({ role: 'producer', queryTimeout: '2s' }),
  ],
  // A producer makes the templates as well.
  providers: handlers(ledger, null),
})
class ClientModule {}

const app = await NestFactory.createApplicationContext(ClientModule, {
  logger: false,
  abortOnError: false,
});
recordStalls(ledger);
app
  .get(JobEvents)
  .on('database.lost', ({ error }) =>
    ledger.write({ what: 'databaseLost', error: String(error).slice(0, 200) }),
  );
const engine = app.get(JobEngineService);
const dataSource = app.get<DataSource>(getDataSourceToken());

class RolledBack extends Error {}
class JoinedOther extends Error {}
class NoAnswer extends Error {}

const stopping = new AbortController();
const underWay = new Set<Promise<void>>();

const optionsOf = ({ id, priority, delayMs }: PlannedJob) => ({
  jobRunIdentifier: id,
  priority: load.priority ?? priority,
  delay: delayMs,
});

async function alone(job: PlannedJob): Promise<void> {
  await engine.enqueueJob(code(job), job.context, optionsOf(job));
}

/** Under one of a few unique keys. Most of these calls find a job under theirs. */
async function underKey(job: PlannedJob): Promise<void> {
  const { jobRunIdentifier } = await engine.enqueueJob(code(job), job.context, {
    ...optionsOf(job),
    unique: { key: keyOf(job) },
  });
  if (jobRunIdentifier !== job.id) throw new JoinedOther(`joined ${jobRunIdentifier}`);
}

const KEYS = 6;
const keyOf = ({ n }: PlannedJob) => `key ${n % KEYS}`;

async function inTransaction(job: PlannedJob): Promise<void> {
  await dataSource.transaction(async (manager) => {
    await engine.enqueueJob(code(job), job.context, {
      ...optionsOf(job),
      manager,
    });
    await manager.query('INSERT INTO lab_orders (id) VALUES ($1)', [job.id]);
    if (job.rollsBack) throw new RolledBack('rolled back');
  });
}

const code = ({ kind }: PlannedJob) => kind.toUpperCase();

/** Until the answer is known. */
async function enqueue(job: PlannedJob, how: (job: PlannedJob) => Promise<void>): Promise<void> {
  ledger.write({
    what: 'ask',
    id: job.id,
    kind: job.kind,
    maxRetries: MAX_RETRIES[job.kind],
    ...(how === underKey && { key: keyOf(job) }),
    ...(how === inTransaction && {
      transaction: job.rollsBack ? 'rollsBack' : 'commits',
    }),
  });
  for (;;) {
    const begin = nowMs();
    const answer = (what: 'ack' | 'unknown' | 'refused', error?: unknown): void =>
      ledger.write({
        what,
        id: job.id,
        ms: nowMs() - begin,
        ...(error instanceof Error && { error: error.message.slice(0, 200) }),
      });
    try {
      await Promise.race([how(job), noAnswer()]);
      return answer('ack');
    } catch (error) {
      // The transaction that was not heard of has committed.
      if (error instanceof DuplicateJobError) return answer('ack');
      if (error instanceof RolledBack || error instanceof JoinedOther)
        return answer('refused', error);
      if (isTyped(error)) return answer('refused', error);
      answer('unknown', error);
      // What was to be rolled back cannot have committed.
      if (job.rollsBack && how === inTransaction) return;
      await wait(200 + Math.random() * 300);
    }
  }
}

/** Our own errors say what is wrong, but for that of the database, which may be anything. */
const isTyped = (error: unknown) =>
  error instanceof BildadError && error.name !== 'BildadDatabaseError';

const noAnswer = async () => {
  await wait(CALL_MS, undefined, { ref: false });
  throw new NoAnswer(`no answer in ${CALL_MS} ms`);
};

/** What an operator does to a job now and then: stops it while it runs, or cancels it. */
async function operate(job: PlannedJob): Promise<void> {
  const deed = job.kind === 'stopped' ? 'stop' : job.n % 11 === 0 && job.kind === 'long';
  if (!deed) return;
  ledger.write({
    what: 'operated',
    id: job.id,
    deed: deed === 'stop' ? 'stop' : 'cancel',
  });
  const [entry] = await dataSource.query<{ id: string }[]>(
    'SELECT id::text FROM bildad.job_queue_entries WHERE job_run_identifier = $1',
    [job.id],
  );
  if (!entry) return;
  if (deed !== 'stop') return void (await engine.cancelJob(entry));
  for (let look = 0; look < 40; look++) {
    if (await engine.stopJobInQueue(entry)) return;
    await wait(25);
  }
}

function submit(job: PlannedJob, how: (job: PlannedJob) => Promise<void>) {
  const work = enqueue(job, how)
    .then(() => operate(job))
    .catch((error: unknown) => {
      ledger.write({
        what: 'engineError',
        doing: 'an operator',
        error: String(error).slice(0, 200),
      });
    })
    .finally(() => underWay.delete(work));
  underWay.add(work);
}

async function client(
  number: number,
  how: (job: PlannedJob) => Promise<void>,
  share = 0.5,
): Promise<void> {
  for (let n = 0; !stopping.signal.aborted; n++) {
    if (underWay.size < MOST_AT_ONCE) submit(plannedJob(seed, number, n, mix), how);
    await wait(1_000 / (perSecond * share));
  }
}

async function bursts(): Promise<void> {
  if (burst === 0) return;
  for (let n = 0; !stopping.signal.aborted; n++) {
    for (let one = 0; one < burst; one++)
      submit(
        {
          ...plannedJob(seed, 3, n * burst + one, burstMix),
          delayMs: 0,
        },
        alone,
      );
    await wait(3_000);
  }
}

/** Long enough that a node which sees them at its next tick only finds some left. */
function probe(count: number): void {
  for (let n = 0; n < count; n++)
    submit(
      {
        n,
        id: `probe-${n}`,
        kind: 'ok',
        context: { n, ms: 1_000 },
        priority: 1,
        delayMs: 0,
        rollsBack: false,
      },
      alone,
    );
}

process.on('message', (asked: { probe: number } | 'start' | 'stop') => {
  if (asked === 'start') {
    void client(1, alone);
    void client(2, inTransaction);
    void client(4, underKey, KEYED_SHARE);
    void bursts();
  } else if (asked === 'stop') {
    stopping.abort();
    void (async () => {
      while (underWay.size > 0) await Promise.all(underWay);
      process.send!('stopped');
    })();
  } else probe(asked.probe);
});
ledger.write({ what: 'ready', pid: process.pid });
process.send!('ready');
