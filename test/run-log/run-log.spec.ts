import { BildadJob, type JobExecution, type JobHandler, type LogOptions } from 'nestjs-bildad';
import { afterEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';
import { brief, until } from '../support/watch.js';

// Progress of jobs, and the log lines of failed runs.

type Script = { report: (job: JobExecution) => void; fails?: boolean };
const scripts = new Map<string, Script>();

@BildadJob({ code: 'LOGGING', maxRetries: 0 })
class LoggingJob implements JobHandler<object> {
  runJob(_context: object, job: JobExecution): void {
    const { report, fails } = scripts.get(job.jobRunIdentifier)!;
    report(job);
    if (fails) throw new Error('no');
  }
}

@BildadJob({ code: 'ENCRYPTED_LOGGING', maxRetries: 0, encrypt: true })
class EncryptedLoggingJob extends LoggingJob {}

let bildad: TestApp;
afterEach(() => bildad.close());

async function boot(logs?: LogOptions): Promise<void> {
  bildad = await bootApp({
    providers: [LoggingJob, EncryptedLoggingJob, GatedJob],
    options: {
      ...(logs && { logs }),
      encryption: { keys: { k: Buffer.alloc(32, 1) }, current: 'k' },
    },
  });
}

let named = 0;
async function runJob(
  report: Script['report'],
  { fails = true, job = LoggingJob } = {},
): Promise<string> {
  const jobRunIdentifier = `run-${++named}`;
  scripts.set(jobRunIdentifier, { report, fails });
  await bildad.engine.enqueueAndRunJob(job, {}, { jobRunIdentifier });
  await bildad.engine.waitForJob(jobRunIdentifier);
  return jobRunIdentifier;
}
const lines = async (identifier: string) =>
  (await bildad.jobs.logs(identifier)).flatMap((log) =>
    log.lines.map(({ level, message }) => `${level} ${message}`),
  );
/** The lines of a failed run, which are written after its end. */
const expectLines = (identifier: string) =>
  expect.poll(() => lines(identifier), { timeout: 5_000 });

it('the log lines of a failed run are stored with their levels', async () => {
  await boot();
  const name = await runJob((job) => {
    const { logger } = job;
    job.log('begins');
    logger.warn('hm', { n: 1 });
    logger.debug('details');
    logger.error(new RangeError('broken'));
  });
  await expectLines(name).toEqual([
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

it("the log lines of a successful run are stored with keep: 'always' only", async () => {
  await boot();
  const name = await runJob((job) => job.log('fine'), { fails: false });
  const failed = await runJob((job) => job.log('not fine'));
  await expectLines(failed).toEqual(['log not fine']);
  expect(await lines(name)).toEqual([]);
  await bildad.close();
  await boot({ keep: 'always' });
  await expectLines(await runJob((job) => job.log('fine'), { fails: false })).toEqual(['log fine']);
});

it('the last lines up to the limits are stored', async () => {
  await boot({ lines: 5, lineBytes: 10, runBytes: 35 });
  const name = await runJob((job) => {
    for (let n = 0; n < 1_000; n++) job.log(`${n}${'x'.repeat(100)}`);
  });
  await expectLines(name).toEqual(['log 997xxxxxxx', 'log 998xxxxxxx', 'log 999xxxxxxx']);
  expect((await bildad.jobs.logs(name))[0]).toMatchObject({ dropped: 997 });
});

it('a line is truncated at a character boundary', async () => {
  await boot({ lineBytes: 10, runBytes: 25, redact: (line) => `${line}!` });
  const name = await runJob((job) => {
    job.log('too much, and the first to go');
    job.log('ééééé');
    job.log('ab😀😀😀');
    job.log('éé');
  });
  await expectLines(name).toEqual(['log ééééé', 'log ab😀😀', 'log éé!']);
  expect((await bildad.jobs.logs(name))[0]).toMatchObject({ dropped: 1 });
});

it('the redact hook receives the whole line, and its result is truncated', async () => {
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
  job.log(`card ${'4111'.repeat(4)} of customer`);
  door.open(Promise.reject(new Error('no')));
  const line = 'log card [card] of custo';
  expect((await until(updates)).map(brief)).toEqual([line, 'end 0 FAILED']);
  await expectLines(jobRunIdentifier).toEqual([line]);
});

it('a redact hook that fails hides the line', async () => {
  await boot({
    redact: (line) => {
      if (line.includes('throw')) throw new Error('no');
      if (line.includes('undefined')) return undefined as unknown as string;
      if (line.includes('reject')) return Promise.reject(new Error('reject')) as unknown as string;
      return line.replaceAll(/\d/g, '#');
    },
  });
  const name = await runJob((job) => {
    job.log('card 4711');
    job.log('throw 4711');
    job.log('undefined 4711');
    job.log('reject 4711');
  });
  await expectLines(name).toEqual([
    'log card ####',
    'log [not stored: the redact hook failed]',
    'log [not stored: the redact hook failed]',
    'log [not stored: the redact hook failed]',
  ]);
});

it('of an encrypted job only the progress fraction is stored', async () => {
  await boot({ keep: 'always' });
  let progressInMemory: unknown;
  const events: unknown[] = [];
  bildad.events.on('run.progress', (event) => events.push(event));
  const name = await runJob(
    (job) => {
      job.log('secret');
      job.stream('secret');
      job.progress(0.5, 'secret');
      progressInMemory = bildad.engine.findJobProcess({ id: job.jobRunId })?.progress;
    },
    { job: EncryptedLoggingJob },
  );
  await expect
    .poll(() => bildad.jobs.progressOf(name))
    .toMatchObject({ fraction: 0.5, message: null });
  const [row] = await bildad.sql<{ text: string }>(
    'SELECT json_agg(n)::text AS text FROM bildad.job_run_notes n',
  );
  expect(row!.text).not.toContain('secret');
  expect(progressInMemory).toMatchObject({ fraction: 0.5, message: null });
  expect(events).toEqual([expect.not.objectContaining({ message: 'secret' })]);
  expect(await lines(name)).toEqual([]);
});

it('no output of a handler fails its job', async () => {
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
  const name = await runJob((job) => {
    const reports: ((value: any) => void)[] = [
      (value) => job.progress(value),
      (value) => job.stream(value),
      (value) => job.log(value),
    ];
    for (const value of [hostile, cycle, undefined, 1n, Symbol('s'), 'a\0b\uD800'])
      for (const report of reports) report(value);
    job.progress(NaN);
    job.progress(7, hostile as unknown as string);
    job.logger.warn('x'.repeat(1_000_000));
    job.stream('x'.repeat(1_000_000));
    job.progress(2, 'a\0b');
  });
  const run = await bildad.engine.waitForJob(name);
  expect(run.reason).toBe('no');
  await expect
    .poll(() => bildad.jobs.progressOf(name))
    .toMatchObject({ fraction: 1, message: 'a�b' });
});

it('progress is written at the start, at intervals and at the end of a run', async () => {
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

it('the run log of a killed run ends with the kill', async () => {
  await boot();
  await bildad.engine.enqueueAndRunJob(
    GatedJob,
    { ignoresAbort: true },
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
  await expectLines('killed').toEqual(['log before']);
  door.open(null);
  await ended;
  expect(await bildad.jobs.progressOf('killed')).toBeNull();
});

it('the run log of a run that is failed with failJob ends with that call', async () => {
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
  // Written after or together with the lines of the first run.
  await expectLines(await runJob((other) => other.log('other'))).toEqual(['log other']);
  expect(await lines('closed')).toEqual(['log a', 'log b']);
});

it('a run that is completed with completeJob stores no lines although its handler throws', async () => {
  await boot();
  await bildad.engine.enqueueAndRunJob(GatedJob, {}, { jobRunIdentifier: 'completed' });
  const { job } = await GatedJob.arrival();
  job.signal.addEventListener('abort', () => job.log('aborted'));
  const lost = bildad.next('run.finishRejected');
  await bildad.engine.completeJob({ id: job.jobRunId });
  await lost;
  await expectLines(await runJob((other) => other.log('other'))).toEqual(['log other']);
  expect(await lines('completed')).toEqual([]);
});

it('an unknown job has no lines and no progress', async () => {
  await boot();
  expect(await bildad.jobs.logs('none')).toEqual([]);
  expect(await bildad.jobs.progressOf('none')).toBeNull();
  await expect(bildad.jobs.logs('')).rejects.toThrow(/jobRunIdentifier/);
  await expect(bildad.jobs.logs({ id: 'x' })).rejects.toThrow(/run/);
});
