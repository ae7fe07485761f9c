import { BildadJob, type JobExecution, type JobHandler, type LogOptions } from 'nestjs-bildad';
import { afterEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';
import { brief, until } from '../support/watch.js';

// What jobs say of themselves: progress, and the lines of those that fail.

type Says = { say: (job: JobExecution) => void; fails?: boolean };
const acts = new Map<string, Says>();

@BildadJob({ code: 'SAYING', maxRetries: 0 })
class SayingJob implements JobHandler<object> {
  runJob(_context: object, job: JobExecution): void {
    const { say, fails } = acts.get(job.jobRunIdentifier)!;
    say(job);
    if (fails) throw new Error('as told');
  }
}

@BildadJob({ code: 'SECRET_SAYING', maxRetries: 0, encrypt: true })
class SecretSayingJob extends SayingJob {}

let bildad: TestApp;
afterEach(() => bildad.close());

async function boot(logs?: LogOptions): Promise<void> {
  bildad = await bootApp({
    providers: [SayingJob, SecretSayingJob, GatedJob],
    options: {
      ...(logs && { logs }),
      encryption: { keys: { k: Buffer.alloc(32, 1) }, current: 'k' },
    },
  });
}

let named = 0;
async function says(say: Says['say'], { fails = true, job = SayingJob } = {}): Promise<string> {
  const jobRunIdentifier = `says-${++named}`;
  acts.set(jobRunIdentifier, { say, fails });
  await bildad.engine.enqueueAndRunJob(job, {}, { jobRunIdentifier });
  await bildad.engine.waitForJob(jobRunIdentifier);
  return jobRunIdentifier;
}
const lines = async (identifier: string) =>
  (await bildad.jobs.logs(identifier)).flatMap((log) =>
    log.lines.map(({ level, message }) => `${level} ${message}`),
  );
/** Of a job that fails: then its lines are there. */
const kept = (identifier: string) => expect.poll(() => lines(identifier), { timeout: 5_000 });

it('the lines of a run that fails are kept, by the level', async () => {
  await boot();
  const name = await says((job) => {
    const { logger } = job;
    job.log('begins');
    logger.warn('hm', { n: 1 });
    logger.debug('details');
    logger.error(new RangeError('broken'));
  });
  await kept(name).toEqual([
    'log begins',
    'warn hm { n: 1 }',
    'debug details',
    expect.stringMatching(/^error RangeError: broken\n +at /),
  ]);
  const [log] = await bildad.jobs.logs(name);
  expect(log).toMatchObject({ retry: 0, dropped: 0 });
  expect(log!.lines[0]!.at).toBeInstanceOf(Date);
  expect(await bildad.jobs.logs({ id: log!.jobRunId })).toEqual([log]);
});

it('of one that succeeds none are, unless all are to be kept', async () => {
  await boot();
  const name = await says((job) => job.log('fine'), { fails: false });
  const failed = await says((job) => job.log('not fine'));
  await kept(failed).toEqual(['log not fine']);
  expect(await lines(name)).toEqual([]);
  await bildad.close();
  await boot({ keep: 'always' });
  await kept(await says((job) => job.log('fine'), { fails: false })).toEqual(['log fine']);
});

it('the last lines are kept, as far as there is room', async () => {
  await boot({ lines: 5, lineBytes: 10, runBytes: 35 });
  const name = await says((job) => {
    for (let n = 0; n < 1_000; n++) job.log(`${n}${'x'.repeat(100)}`);
  });
  await kept(name).toEqual(['log 997xxxxxxx', 'log 998xxxxxxx', 'log 999xxxxxxx']);
  expect((await bildad.jobs.logs(name))[0]).toMatchObject({ dropped: 997 });
});

it('a line is cut where a character ends', async () => {
  await boot({ lineBytes: 10, runBytes: 25, redact: (line) => `${line}!` });
  const name = await says((job) => {
    job.log('too much, and the first to go');
    job.log('ééééé');
    job.log('ab😀😀😀');
    job.log('éé');
  });
  await kept(name).toEqual(['log ééééé', 'log ab😀😀', 'log éé!']);
  expect((await bildad.jobs.logs(name))[0]).toMatchObject({ dropped: 1 });
});

it('a redact hook sees a line whole, and what it returns is cut', async () => {
  await boot({
    lineBytes: 20,
    redact: (line) => line.replaceAll(/\d{16}/g, '[card]'),
  });
  const { jobRunIdentifier } = await bildad.engine.enqueueAndRunJob(
    GatedJob,
    {},
    { maxRetries: 0 },
  );
  const { job, door } = await GatedJob.arrival();
  const updates = bildad.jobs.watch(jobRunIdentifier);
  await updates.next();
  job.log(`card ${'4111'.repeat(4)} of somebody`);
  door.open(Promise.reject(new Error('no')));
  const line = 'log card [card] of someb';
  expect((await until(updates)).map(brief)).toEqual([line, 'end 0 FAILED']);
  await kept(jobRunIdentifier).toEqual([line]);
});

it('a redact hook that fails lets nothing through', async () => {
  await boot({
    redact: (line) => {
      if (line.includes('throw')) throw new Error('no');
      if (line.includes('odd')) return undefined as unknown as string;
      if (line.includes('late')) return Promise.reject(new Error('late')) as unknown as string;
      return line.replaceAll(/\d/g, '#');
    },
  });
  const name = await says((job) => {
    job.log('card 4711');
    job.log('throw 4711');
    job.log('odd 4711');
    job.log('late 4711');
  });
  await kept(name).toEqual([
    'log card ####',
    'log [not kept: the redact hook failed]',
    'log [not kept: the redact hook failed]',
    'log [not kept: the redact hook failed]',
  ]);
});

it('of an encrypted job there is the fraction, and nothing else', async () => {
  await boot({ keep: 'always' });
  let told: unknown;
  const events: unknown[] = [];
  bildad.events.on('run.progress', (event) => events.push(event));
  const name = await says(
    (job) => {
      job.log('secret');
      job.stream('secret');
      job.progress(0.5, 'secret');
      told = bildad.engine.findJobProcess({ id: job.jobRunId })?.progress;
    },
    { job: SecretSayingJob },
  );
  await expect
    .poll(() => bildad.jobs.progressOf(name))
    .toMatchObject({ fraction: 0.5, message: null });
  const [row] = await bildad.sql<{ text: string }>(
    'SELECT json_agg(n)::text AS text FROM bildad.job_run_notes n',
  );
  expect(row!.text).not.toContain('secret');
  expect(told).toMatchObject({ fraction: 0.5, message: null });
  expect(events).toEqual([expect.not.objectContaining({ message: 'secret' })]);
  expect(await lines(name)).toEqual([]);
});

it('nothing that a handler says fails its job', async () => {
  await boot();
  const hostile = {
    get [Symbol.toStringTag]() {
      throw new Error('no');
    },
    toJSON() {
      throw new Error('no');
    },
    toString() {
      throw new Error('no');
    },
  };
  const cycle: { self?: unknown } = {};
  cycle.self = cycle;
  const name = await says((job) => {
    const sayings: ((odd: any) => void)[] = [
      (odd) => job.progress(odd),
      (odd) => job.stream(odd),
      (odd) => job.log(odd),
    ];
    for (const odd of [hostile, cycle, undefined, 1n, Symbol('s'), 'a\0b\uD800'])
      for (const say of sayings) say(odd);
    job.progress(NaN);
    job.progress(7, hostile as unknown as string);
    job.logger.warn('x'.repeat(1_000_000));
    job.stream('x'.repeat(1_000_000));
    job.progress(2, 'a\0b');
  });
  const run = await bildad.engine.waitForJob(name);
  expect(run.reason).toBe('as told');
  await expect
    .poll(() => bildad.jobs.progressOf(name))
    .toMatchObject({ fraction: 1, message: 'a�b' });
});

it('progress of a run that goes on is written, then now and then, and at the end', async () => {
  await boot();
  const entry = await bildad.engine.enqueueAndRunJob(GatedJob, {});
  const { job, door } = await GatedJob.arrival();
  const { jobRunIdentifier } = entry;
  const written = () => bildad.jobs.progressOf(jobRunIdentifier);
  job.progress(0.1, 'first');
  await expect.poll(written).toMatchObject({
    jobRunId: job.jobRunId,
    retry: 0,
    fraction: 0.1,
    message: 'first',
  });
  const [{ xmin }] = (await bildad.sql('SELECT xmin::text FROM bildad.job_run_notes')) as [
    { xmin: string },
  ];
  for (let n = 0; n < 100; n++) job.progress(n / 100);
  job.progress(0.9, 'last');
  door.open(null);
  await bildad.engine.waitForJob(jobRunIdentifier);
  await expect.poll(written).toMatchObject({ fraction: 0.9, message: 'last' });
  const rows = await bildad.sql('SELECT xmin::text FROM bildad.job_run_notes');
  expect(rows).toHaveLength(1);
  expect(rows[0].xmin).not.toBe(xmin);
});

it('a run that is killed keeps what it said, and what it says later is nobody’s', async () => {
  await boot();
  await bildad.engine.enqueueAndRunJob(
    GatedJob,
    { deaf: true },
    {
      jobRunIdentifier: 'killed',
      maxRetries: 0,
    },
  );
  const { job, door } = await GatedJob.arrival();
  job.log('before');
  const ended = bildad.next('process.ended');
  await bildad.engine.killJob({ id: job.jobRunId });
  job.log('after');
  job.progress(1);
  await kept('killed').toEqual(['log before']);
  door.open(null);
  await ended;
  expect(await bildad.jobs.progressOf('killed')).toBeNull();
});

it('a run that is closed by hand keeps what it said until then, whatever its handler says on its way out', async () => {
  await boot();
  await bildad.engine.enqueueAndRunJob(GatedJob, {}, { jobRunIdentifier: 'closed' });
  const { job } = await GatedJob.arrival();
  job.log('a');
  job.log('b');
  job.signal.addEventListener('abort', () => job.log('aborted'));
  bildad.events.on('run.finished', () => job.log('closed'));
  const lost = bildad.next('run.finishRejected');
  await bildad.engine.failJob({ id: job.jobRunId }, new Error('by hand'));
  await lost;
  // Written after, or together with, whatever there is of the other one.
  await kept(await says((other) => other.log('other'))).toEqual(['log other']);
  expect(await lines('closed')).toEqual(['log a', 'log b']);
});

it('a run that is completed by hand keeps no lines, although its handler throws', async () => {
  await boot();
  await bildad.engine.enqueueAndRunJob(GatedJob, {}, { jobRunIdentifier: 'completed' });
  const { job } = await GatedJob.arrival();
  job.signal.addEventListener('abort', () => job.log('aborted'));
  const lost = bildad.next('run.finishRejected');
  await bildad.engine.completeJob({ id: job.jobRunId });
  await lost;
  await kept(await says((other) => other.log('other'))).toEqual(['log other']);
  expect(await lines('completed')).toEqual([]);
});

it('a job whose identifier is none has none of it', async () => {
  await boot();
  expect(await bildad.jobs.logs('none')).toEqual([]);
  expect(await bildad.jobs.progressOf('none')).toBeNull();
  await expect(bildad.jobs.logs('')).rejects.toThrow(/jobRunIdentifier/);
  await expect(bildad.jobs.logs({ id: 'x' })).rejects.toThrow(/run/);
});
