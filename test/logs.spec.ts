import type { INestApplicationContext, LoggerService } from '@nestjs/common';
import { IsInt, IsString } from 'class-validator';
import { randomUUID } from 'node:crypto';
import { inspect } from 'node:util';
import {
  BildadJob,
  InvalidJobContextError,
  JobEngineService,
  JobEvents,
  type JobEventMap,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from './support/database.js';
import { gate, type Gate } from './support/gate.js';
import { bootHost } from './support/host.js';

// No log line contains a job's context, for any outcome, even when the error of the handler or of
// PostgreSQL quotes it.

const secret = `secret-${randomUUID()}`;

class SecretContext {
  @IsString() does!: string;
  @IsString() token!: string;
  @IsInt() number!: number;
}
const context = (does: string) => ({
  does,
  token: secret,
  number: 987_654_321,
});
const SECRETS = [secret, '987654321'];

@BildadJob({
  code: 'SECRET',
  context: SecretContext,
  maxRetries: 0,
  backoff: (_retry, error) => {
    throw error;
  },
})
class SecretJob implements JobHandler<SecretContext> {
  static readonly doors: Gate[] = [];

  runJob({ does, token }: SecretContext, job: JobExecution): unknown {
    const error = new Error(`cannot use ${token}`, {
      cause: new TypeError(`of ${token}`),
    });
    if (does === 'succeed') return { token };
    if (does === 'fail') throw error;
    const door = gate();
    SecretJob.doors.push(door);
    if (does === 'ignore abort') return door.opened.then(() => ({ token }));
    return new Promise((resolve, reject) => {
      void door.opened.then(resolve);
      job.signal.addEventListener('abort', () => reject(error));
    });
  }
}

const lines: string[] = [];
const keep = (...values: unknown[]) =>
  void lines.push(
    values
      .map((part) =>
        typeof part === 'string' ? part : inspect(part, { depth: 20, maxStringLength: null }),
      )
      .join(' '),
  );
const logger: LoggerService = {
  log: keep,
  error: keep,
  warn: keep,
  debug: keep,
  verbose: keep,
  fatal: keep,
};

let database: TestDatabase;
let app: INestApplicationContext;
let engine: JobEngineService;
let events: JobEvents;
beforeAll(async () => {
  database = await createDatabase();
  app = await bootHost({ url: database.url, providers: [SecretJob], logger });
  engine = app.get(JobEngineService);
  events = app.get(JobEvents);
});
afterAll(() => database.drop());

const next = <E extends keyof JobEventMap>(event: E) =>
  new Promise<JobEventMap[E][0]>((resolve) => {
    const off = events.on(event, (payload) => {
      off();
      resolve(payload);
    });
  });
const run = (does: string, options = {}) =>
  engine.enqueueAndRunJob(SecretJob, context(does), options);
const lastGate = () => SecretJob.doors.at(-1)!;

const SCENARIOS: Record<string, [scenario: () => Promise<unknown>, logged: RegExp]> = {
  'a success': [
    async () => engine.waitForJob((await run('succeed')).jobRunIdentifier),
    /SECRET .* completed, entry removed/,
  ],
  'a failure whose error quotes the context': [
    async () => engine.waitForJob((await run('fail')).jobRunIdentifier),
    /SECRET .* failed with Error, entry removed/,
  ],
  'a retry with a backoff function that throws': [
    async () => {
      const finished = next('run.finished');
      await run('fail', { maxRetries: 1 });
      await finished;
    },
    /the backoff of SECRET failed with Error/,
  ],
  'a timeout': [
    async () => engine.waitForJob((await run('wait', { timeout: 20 })).jobRunIdentifier),
    /SECRET .* timedOut, entry removed/,
  ],
  'a timeout that the handler ignores': [
    async () => {
      const abandoned = next('process.abandoned');
      await run('ignore abort', { timeout: 20 });
      await abandoned;
      const ended = next('process.ended');
      lastGate().open();
      await ended;
    },
    /SECRET .* its handler did not stop/,
  ],
  'a kill': [async () => engine.killJob(await run('wait')), /SECRET .* killed, entry removed/],
  'a completion after the run has ended': [
    async () => {
      const started = await run('ignore abort');
      await engine.completeJob(started, { token: secret });
      const lost = next('run.finishRejected');
      lastGate().open();
      await lost;
    },
    /SECRET .* completed rejected: its run had ended before/,
  ],
  'an expiry': [
    async () => {
      const started = await run('ignore abort');
      await database.sql("UPDATE bildad.job_runs SET expires_at = '2000-01-01' WHERE id = $1", [
        started.id,
      ]);
      await engine.runJobEngine();
      const lost = next('run.finishRejected');
      lastGate().open();
      await lost;
    },
    /SECRET .* expired, entry removed/,
  ],
  'a rejected enqueue': [
    () =>
      expect(
        engine.enqueueJob(SecretJob, {
          ...context('x'),
          number: secret,
        } as never),
      ).rejects.toBeInstanceOf(InvalidJobContextError),
    // The caller has the error, so no line is logged.
    /^$/,
  ],
  'a context that became invalid in the queue': [
    async () => {
      const entry = await engine.enqueueJob(SecretJob, context('x'));
      await database.sql(
        `UPDATE bildad.job_queue_entries SET job_context = jsonb_build_object('token', $2::text) WHERE id = $1`,
        [entry.id, secret],
      );
      await expect(engine.runJob(entry)).rejects.toBeInstanceOf(InvalidJobContextError);
    },
    /SECRET .* invalidContext, entry removed/,
  ],
  'a database error that quotes the row': [
    async () => {
      const started = await run('ignore abort');
      await database.sql(
        "ALTER TABLE bildad.job_runs ADD CONSTRAINT never_done CHECK (status = 'RUNNING') NOT VALID",
      );
      const failed = next('engine.error');
      lastGate().open();
      // The driver's error does contain the secret, so a line that passes it on would fail the
      // test.
      expect(inspect((await failed).error, { depth: 5 })).toContain(secret);
      await database.sql('ALTER TABLE bildad.job_runs DROP CONSTRAINT never_done');
      await engine.waitForJob(started.jobRunIdentifier);
    },
    /recording the end of run \d+ failed with QueryFailedError \(23514\)/,
  ],
  'a listener that throws an error with the secret': [
    async () => {
      const failed = next('engine.error');
      const off = events.on('run.progress', () => {
        throw new Error(secret);
      });
      events.emit('run.progress', {
        jobRunId: '1',
        jobRunIdentifier: 'x',
        templateCode: 'SECRET',
        retry: 0,
        fraction: 1,
      });
      await failed;
      off();
    },
    /a listener of run\.progress failed with Error/,
  ],
  'a shutdown': [
    async () => {
      await run('wait');
      await app.close();
    },
    /SECRET .* interrupted, entry reopened/,
  ],
};

it.each(Object.entries(SCENARIOS))('%s', async (_what, [scenario, logged]) => {
  const before = lines.length;
  await scenario();
  expect(lines.slice(before).join('\n')).toMatch(logged);
  for (const line of lines) for (const quoted of SECRETS) expect(line).not.toContain(quoted);
});

it('the database stores the secret that the log omits', async () => {
  const [row] = await database.sql<{ count: number }>(
    `SELECT count(*)::int AS count FROM bildad.job_runs WHERE reason LIKE $1`,
    [`%${secret}%`],
  );
  expect(row!.count).toBeGreaterThan(0);
});
