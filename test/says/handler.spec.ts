import {
  BildadJob,
  JobCancelledError,
  NonRetryableError,
  SnoozeError,
  type JobExecution,
  type JobHandler,
  type JobRun,
} from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';
import { bootIsolated, type IsolatedApp } from '../support/isolated.js';

// What a handler may say beside returning and throwing: not for now, not at all, never again.

let doing: (job: JobExecution) => unknown;

@BildadJob({ code: 'SAYS', maxRetries: 1 })
class SaysJob implements JobHandler<object> {
  runJob(_context: object, job: JobExecution): unknown {
    return doing(job);
  }
}

const backoffs: { retry: number; error: unknown }[] = [];
let pause: (retry: number, error: unknown) => unknown;

@BildadJob({
  code: 'BACKS_OFF',
  maxRetries: 3,
  backoff: (retry, error) => {
    backoffs.push({ retry, error });
    return pause(retry, error) as number;
  },
})
class BacksOffJob implements JobHandler<object> {
  runJob(): void {
    throw new RangeError('too far');
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SaysJob, BacksOffJob, GatedJob] });
});
afterAll(() => bildad.close());

/** Has it run once, and tells how that run ended, and what is left of the entry. */
async function once(does: (job: JobExecution) => unknown) {
  doing = does;
  const { engine, jobs, next } = bildad;
  const finished = next('run.finished');
  const run = await engine.enqueueAndRunJob(SaysJob, {});
  const event = await finished;
  const [ended] = await jobs.listJobRunsForIdentifier(run.jobRunIdentifier);
  const entry = await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier);
  return { event, run: ended as JobRun, entry };
}

describe('snooze', () => {
  it('puts the job off for the delay, and spends no retry, however often', async () => {
    const { event, run, entry } = await once((job) => job.snooze('1h', 'the bank is closed'));
    expect(event).toMatchObject({ outcome: 'snoozed', entry: 'reopened' });
    expect(run).toMatchObject({
      status: 'DONE',
      result: 'FAILED',
      reason: 'Snoozed: the bank is closed',
      error: null,
    });
    expect(entry).toMatchObject({
      status: 'AVAILABLE',
      scheduled: true,
      retry: 1,
      uncountedRuns: 1,
    });
    expect(entry!.runAt.getTime() - run.endedAt!.getTime()).toBe(3_600_000);

    const { engine, jobs, next } = bildad;
    for (let times = 0; times < 3; times++) {
      const finished = next('run.finished');
      await engine.runJob(entry!);
      await finished;
    }
    doing = () => {
      throw new Error('at last');
    };
    for (const fate of ['reopened', 'removed']) {
      const failed = next('run.finished');
      await engine.runJob(entry!);
      expect(await failed).toMatchObject({ outcome: 'failed', entry: fate });
    }
    const runs = await jobs.listJobRunsForIdentifier(entry!.jobRunIdentifier);
    const reasons = runs.map(({ reason }) => reason?.slice(0, 7));
    expect(reasons.join()).toBe('Snoozed,Snoozed,Snoozed,Snoozed,at last,at last');
  });

  it('may be thrown, and says no why', async () => {
    const { run, entry } = await once(() => {
      throw new SnoozeError('2s');
    });
    expect(run.reason).toBe('Snoozed');
    expect(entry!.runAt.getTime() - run.endedAt!.getTime()).toBe(2_000);
  });

  it('a delay that is none fails the run, and names what it expected', async () => {
    const { run } = await once((job) => job.snooze('soon'));
    expect(run.reason).toMatch(/^snooze\(delay\) must be a duration/);
  });
});

describe('cancel', () => {
  it.each([
    ['job.cancel', (job: JobExecution) => job.cancel('the order is gone')],
    [
      'throwing it',
      () => {
        throw new JobCancelledError('the order is gone');
      },
    ],
  ])('%s ends it for good, with the reason', async (_how, does) => {
    const { event, run, entry } = await once(does);
    expect(event).toMatchObject({ outcome: 'cancelled', entry: 'removed' });
    expect(run).toMatchObject({
      result: 'FAILED',
      reason: 'Cancelled: the order is gone',
    });
    expect(entry).toBeNull();
  });
});

describe('NonRetryableError', () => {
  it('fails for good, with its text', async () => {
    const cause = new TypeError('no such column');
    const { event, run, entry } = await once(() => {
      throw new NonRetryableError('the card is stolen', { cause });
    });
    expect(event).toMatchObject({
      outcome: 'failedForGood',
      entry: 'removed',
      errorName: 'NonRetryableError',
    });
    expect(run).toMatchObject({
      reason: 'the card is stolen',
      error: {
        name: 'NonRetryableError',
        code: 'NON_RETRYABLE',
        cause: { name: 'TypeError' },
      },
    });
    expect(entry).toBeNull();
  });

  it('may be extended', async () => {
    class CardStolen extends NonRetryableError {
      override readonly code = 'CARD_STOLEN';
    }
    const { event, run } = await once(() => {
      throw new CardStolen('it is');
    });
    expect(event).toMatchObject({
      outcome: 'failedForGood',
      errorName: 'CardStolen',
    });
    expect(run.error).toMatchObject({ code: 'CARD_STOLEN' });
  });
});

it('what is thrown and cannot be looked at fails as ever', async () => {
  const hostile = new Proxy(new Error('mine'), {
    get(target, key) {
      if (key === 'code' || key === 'delayMs') throw new Error('no');
      return Reflect.get(target, key) as unknown;
    },
    getPrototypeOf: () => {
      throw new Error('no');
    },
  });
  const { event } = await once(() => {
    throw hostile;
  });
  expect(event).toMatchObject({ outcome: 'failed', entry: 'reopened' });
});

describe('a backoff function', () => {
  const failOnce = async () => {
    const { engine, jobs, next } = bildad;
    const finished = next('run.finished');
    const { jobRunIdentifier } = await engine.enqueueAndRunJob(BacksOffJob, {});
    await finished;
    const [run] = await jobs.listJobRunsForIdentifier(jobRunIdentifier);
    const entry = await jobs.getJobQueueEntryForIdentifier(jobRunIdentifier);
    return entry!.runAt.getTime() - run!.endedAt!.getTime();
  };

  it('gets the retry and what was thrown, and says how long', async () => {
    backoffs.length = 0;
    pause = () => '90s';
    expect(await failOnce()).toBe(90_000);
    expect(backoffs).toEqual([{ retry: 0, error: new RangeError('too far') }]);
  });

  it.each<[string, () => unknown]>([
    [
      'throws',
      () => {
        throw new Error('out of order');
      },
    ],
    ['returns no duration', () => 'soon'],
    ['returns a promise', () => Promise.reject(new Error('unheard'))],
  ])('if it %s, that is told, and the default is taken', async (_how, does) => {
    pause = does;
    const told = bildad.next('engine.error');
    const wait = await failOnce();
    expect(wait).toBeGreaterThanOrEqual(495);
    expect(wait).toBeLessThanOrEqual(1_001);
    expect(await told).toMatchObject({ doing: 'the backoff of BACKS_OFF' });
  });
});

describe.each(['THREAD', 'PROCESS'])('in a host: %s', (code) => {
  let isolated: IsolatedApp;
  beforeAll(async () => {
    isolated = await bootIsolated();
  });
  afterAll(() => isolated.close());

  it('a handler says the same', async () => {
    const woken = await isolated.act(code, 'snooze');
    expect(woken).toMatchObject({ output: 'woken', retry: 1 });
    const [first] = await isolated.jobs.listJobRunsForIdentifier(woken.jobRunIdentifier);
    expect(first!.reason).toBe('Snoozed: not yet');
    expect(await isolated.act(code, 'giveUp')).toMatchObject({
      reason: 'Cancelled: nobody wants it',
    });
    const refused = isolated.next('run.finished');
    expect(await isolated.act(code, 'refuse')).toMatchObject({
      reason: 'no such card',
      error: { name: 'NonRetryableError', code: 'NON_RETRYABLE' },
    });
    expect(await refused).toMatchObject({ outcome: 'failedForGood' });
  });
});

it('what a handler decides while a shutdown interrupts it stands', async () => {
  const app = await bootApp({
    providers: [SaysJob],
    options: { shutdown: { drainTimeout: 0, killGracePeriod: '5s' } },
    database: bildad.database,
  });
  doing = (job) =>
    new Promise((_resolve, reject) =>
      job.signal.addEventListener('abort', () => reject(new SnoozeError('1h', 'shut down'))),
    );
  const run = await app.engine.enqueueAndRunJob(SaysJob, {});
  await app.close();
  const [ended] = await bildad.jobs.listJobRunsForIdentifier(run.jobRunIdentifier);
  expect(ended).toMatchObject({ status: 'DONE', reason: 'Snoozed: shut down' });
});
