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
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// A handler can snooze, cancel, or fail without retry.

let act: (job: JobExecution) => unknown;

@BildadJob({ code: 'OUTCOMES', maxRetries: 1 })
class OutcomesJob implements JobHandler<object> {
  runJob(_context: object, job: JobExecution): unknown {
    return act(job);
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
class BackoffJob implements JobHandler<object> {
  runJob(): void {
    throw new RangeError('too far');
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [OutcomesJob, BackoffJob, GatedJob] });
});
afterAll(() => bildad.close());

/** Runs the job once and returns how the run ended and its entry. */
async function once(behavior: (job: JobExecution) => unknown) {
  act = behavior;
  const { engine, jobs, next } = bildad;
  const finished = next('run.finished');
  const run = await engine.enqueueAndRunJob(OutcomesJob, {});
  const event = await finished;
  const [ended] = await jobs.listJobRunsForIdentifier(run.jobRunIdentifier);
  const entry = await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier);
  return { event, run: ended as JobRun, entry };
}

describe('snooze', () => {
  it('reschedules the job after the delay and uses no retry', async () => {
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
    act = () => {
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

  it('can be thrown as SnoozeError without a reason', async () => {
    const { run, entry } = await once(() => {
      throw new SnoozeError('2s');
    });
    expect(run.reason).toBe('Snoozed');
    expect(entry!.runAt.getTime() - run.endedAt!.getTime()).toBe(2_000);
  });

  it('an invalid delay fails the run with an error that names the expected value', async () => {
    const { run } = await once((job) => job.snooze('soon'));
    expect(run.reason).toMatch(/^snooze\(delay\) must be a duration/);
  });
});

describe('cancel', () => {
  it.each([
    ['job.cancel', (job: JobExecution) => job.cancel('the order is gone')],
    [
      'throwing JobCancelledError',
      () => {
        throw new JobCancelledError('the order is gone');
      },
    ],
  ])('%s ends the job with the reason', async (_how, act) => {
    const { event, run, entry } = await once(act);
    expect(event).toMatchObject({ outcome: 'cancelled', entry: 'removed' });
    expect(run).toMatchObject({
      result: 'FAILED',
      reason: 'Cancelled: the order is gone',
    });
    expect(entry).toBeNull();
  });
});

describe('NonRetryableError', () => {
  it('fails the job without retry, with its message', async () => {
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

  it('can be extended', async () => {
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

it('a thrown value that cannot be inspected fails the run with a retry', async () => {
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
    const { jobRunIdentifier } = await engine.enqueueAndRunJob(BackoffJob, {});
    await finished;
    const [run] = await jobs.listJobRunsForIdentifier(jobRunIdentifier);
    const entry = await jobs.getJobQueueEntryForIdentifier(jobRunIdentifier);
    return entry!.runAt.getTime() - run!.endedAt!.getTime();
  };

  it('receives the retry number and the thrown value, and returns the delay', async () => {
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
    ['returns a promise', () => Promise.reject(new Error('rejected'))],
  ])('a function that %s is reported, and the default backoff applies', async (_how, act) => {
    pause = act;
    const reported = bildad.next('engine.error');
    const wait = await failOnce();
    expect(wait).toBeGreaterThanOrEqual(495);
    expect(wait).toBeLessThanOrEqual(1_001);
    expect(await reported).toMatchObject({ doing: 'computing the backoff of BACKS_OFF' });
  });
});

describe.each(['THREAD', 'PROCESS'])('in an isolated host: %s', (code) => {
  let isolated: IsolatedApp;
  beforeAll(async () => {
    isolated = await bootIsolated();
  });
  afterAll(() => isolated.close());

  it('a handler can snooze, cancel and fail without retry', async () => {
    const woken = await isolated.act(code, 'snooze');
    expect(woken).toMatchObject({ output: 'woken', retry: 1 });
    const [first] = await isolated.jobs.listJobRunsForIdentifier(woken.jobRunIdentifier);
    expect(first!.reason).toBe('Snoozed: not yet');
    expect(await isolated.act(code, 'cancel')).toMatchObject({
      reason: 'Cancelled: not needed',
    });
    const refused = isolated.next('run.finished');
    expect(await isolated.act(code, 'refuse')).toMatchObject({
      reason: 'no such card',
      error: { name: 'NonRetryableError', code: 'NON_RETRYABLE' },
    });
    expect(await refused).toMatchObject({ outcome: 'failedForGood' });
  });
});

it('the outcome that a handler chooses during a shutdown is stored', async () => {
  const app = await bootApp({
    providers: [OutcomesJob],
    options: { shutdown: { drainTimeout: 0, killGracePeriod: '5s' } },
    database: bildad.database,
  });
  act = (job) =>
    new Promise((_resolve, reject) =>
      job.signal.addEventListener('abort', () => reject(new SnoozeError('1h', 'shut down'))),
    );
  const run = await app.engine.enqueueAndRunJob(OutcomesJob, {});
  await app.close();
  const [ended] = await bildad.jobs.listJobRunsForIdentifier(run.jobRunIdentifier);
  expect(ended).toMatchObject({ status: 'DONE', reason: 'Snoozed: shut down' });
});
