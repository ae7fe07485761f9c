import { Injectable, Scope } from '@nestjs/common';
import {
  BildadConfigError,
  BildadJob,
  InvalidJobContextError,
  performHandler,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { performJob } from 'nestjs-bildad/testing';
import type { EntityManager } from 'typeorm';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { Mailer, MailJob } from './support/shop.js';

// Runs a handler once, without a database.

const MAIL = { to: 'ada@example.com', subject: 'x' };

@BildadJob({ code: 'ANY' })
class AnyJob implements JobHandler<string> {
  constructor(private readonly work: (job: JobExecution) => unknown = () => undefined) {}

  runJob(_context: string, job: JobExecution) {
    return this.work(job);
  }
}
const perform = (work: (job: JobExecution) => unknown, options = {}) =>
  performJob(new AnyJob(work), 'x', options);

describe('performJob', () => {
  it('performJob runs an instance', async () => {
    const mailer = new Mailer();
    const performed = await performJob(new MailJob(mailer), MAIL, { retry: 2 });
    expect(performed).toEqual({
      outcome: 'completed',
      result: 'mail 1',
      error: undefined,
      reason: null,
      delayMs: undefined,
      progress: [{ fraction: 0.5, message: 'sending' }],
      logs: [{ level: 'log', message: 'attempt 3' }],
    });
    expectTypeOf(performed.result).toEqualTypeOf<string | undefined>();
  });

  it('performJob builds a class with its dependencies', async () => {
    const mailer = new Mailer();
    const { result } = await performJob(MailJob, MAIL, {
      providers: [{ provide: Mailer, useValue: mailer }],
    });
    expect(result).toBe('mail 1');
    expect(mailer.sent).toEqual([MAIL]);
    await expect(performJob(MailJob, MAIL)).rejects.toThrow(/Mailer/);
  });

  it("performJob rejects with the error of a REQUEST-scoped handler's constructor", async () => {
    @Injectable({ scope: Scope.REQUEST })
    @BildadJob({ code: 'SCOPED' })
    class ScopedJob implements JobHandler<object> {
      constructor() {
        throw new Error('no tenant');
      }

      runJob() {}
    }
    await expect(performJob(ScopedJob, {})).rejects.toThrow('no tenant');
  });

  it('performJob rejects contexts and options that enqueueJob would reject', async () => {
    await expect(
      performJob(new MailJob(new Mailer()), { to: 'nobody', subject: 'x' }),
    ).rejects.toThrow(InvalidJobContextError);
    await expect(performHandler({ runJob: () => 1 }, {})).rejects.toThrow(BildadConfigError);
    await expect(perform(() => 1, { retries: 1 })).rejects.toThrow(/retries/);
  });

  it('performJob reports how the run ended', async () => {
    const mailer = new Mailer();
    mailer.failures = 1;
    const job = new MailJob(mailer);
    expect(await performJob(job, MAIL)).toMatchObject({
      outcome: 'failed',
      result: undefined,
      error: new Error('the mail server is down'),
      reason: 'the mail server is down',
    });
    expect(await performJob(job, { ...MAIL, to: 'x@nowhere.example' })).toMatchObject({
      outcome: 'failedForGood',
    });
    expect(await perform((run) => run.snooze('5m', 'later'))).toMatchObject({
      outcome: 'snoozed',
      reason: 'later',
      delayMs: 300_000,
    });
    expect(await perform((run) => run.cancel('enough'))).toMatchObject({
      outcome: 'cancelled',
      reason: 'enough',
    });
    for (const thrown of [undefined, null, 'text', Symbol('s')])
      expect(
        await perform(() => {
          throw thrown;
        }),
      ).toMatchObject({ outcome: 'failed', error: thrown });
  });

  it('performJob stops at its timeout and when its signal aborts', async () => {
    const hangs = ({ signal }: JobExecution) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    expect(await perform(hangs, { timeout: 20 })).toMatchObject({
      outcome: 'timedOut',
    });
    const stop = new AbortController();
    const killed = perform(hangs, { signal: stop.signal });
    stop.abort();
    expect(await killed).toMatchObject({ outcome: 'killed' });
    expect(await perform(hangs, { signal: stop.signal })).toMatchObject({
      outcome: 'killed',
    });
  });

  it('performJob upgrades the context of an older version', async () => {
    @BildadJob({
      code: 'OLD',
      version: 2,
      context: { type: 'object', required: ['name'] },
      upcast: ({ first }: { first: string }, from) => ({ name: first + from }),
    })
    class OldJob implements JobHandler<object> {
      runJob(context: object) {
        return context;
      }
    }
    const { result } = await performJob(new OldJob(), { first: 'Ada' }, { version: 1 });
    expect(result).toEqual({ name: 'Ada1' });
    await expect(performJob(new OldJob(), {}, { version: 3 })).rejects.toThrow(/version/);
  });

  it("performJob passes the test's manager to a transactional handler", async () => {
    @BildadJob({ code: 'TX', transactional: true, encrypt: true })
    class TxJob implements JobHandler<object> {
      runJob(_context: object, { manager }: JobExecution) {
        return manager;
      }
    }
    const manager = {} as EntityManager;
    const { result } = await performJob(new TxJob(), {}, { manager });
    expect(result).toBe(manager);
    expect(await performJob(new TxJob(), {})).toMatchObject({
      outcome: 'failed',
      error: expect.any(BildadConfigError),
    });
    const completing = await perform((job) => {
      void job.complete(manager, 'written');
      throw new Error('too late');
    });
    expect(completing).toMatchObject({
      outcome: 'completed',
      result: 'written',
    });
  });
});
