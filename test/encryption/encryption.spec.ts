import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { Logger } from '@nestjs/common';
import { IsString, MaxLength } from 'class-validator';
import {
  BildadConfigError,
  BildadJob,
  BildadModule,
  EncryptedValue,
  JobEncryptionKeyError,
  type BildadModuleOptions,
  type EncryptionOptions,
  type JobEventMap,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';
import { bootError } from '../support/host.js';

// Contexts and outputs of encrypted jobs are visible to their handlers and to waitForJob only.

const SECRET = 'tr0ub4dor';
const key = () => randomBytes(32).toString('base64');
const KEYS = { old: key(), new: key() };
const OLD: EncryptionOptions = { keys: { old: KEYS.old }, current: 'old' };
const BOTH: EncryptionOptions = { keys: KEYS, current: 'new' };

class PasswordContext {
  @IsString() @MaxLength(20) password!: string;
}

let handle: (context: PasswordContext, job: JobExecution) => unknown = ({ password }) => ({
  echo: password,
});
const errors: unknown[] = [];

@BildadJob({
  code: 'SECRET',
  context: PasswordContext,
  encrypt: true,
  maxRetries: 0,
  backoff: (_retry, error) => {
    errors.push(error);
    return 0;
  },
})
class SecretJob implements JobHandler<PasswordContext> {
  static seen: unknown[] = [];

  runJob(context: PasswordContext, job: JobExecution): unknown {
    SecretJob.seen.push(context);
    return handle(context, job);
  }
}

const EVENTS: (keyof JobEventMap)[] = [
  'entry.enqueued',
  'entry.released',
  'run.started',
  'run.finished',
  'run.finishRejected',
  'process.unhandledRejection',
  'engine.error',
  'engine.pass',
];

let bildad: TestApp;
const emitted: unknown[] = [];
const boot = (encryption?: EncryptionOptions, more: BildadModuleOptions = {}) =>
  bootApp({
    providers: encryption ? [SecretJob, SimpleJob] : [SimpleJob],
    options: { ...more, ...(encryption && { encryption }) },
    ...(bildad && { database: bildad.database }),
  });

beforeAll(async () => {
  bildad = await boot(OLD);
  for (const event of EVENTS) bildad.events.on(event, (payload) => emitted.push(payload));
});
afterAll(() => bildad.close());

/** Everything in the database, the read API and the events. */
async function everythingVisible(): Promise<string> {
  const { jobs, sql } = bildad;
  const rows = await sql(
    `SELECT to_jsonb(r)::text FROM bildad.job_runs r UNION ALL SELECT to_jsonb(e)::text FROM bildad.job_queue_entries e`,
  );
  const lists = [await jobs.listAllJobRuns(), await jobs.listAllJobsInTheQueue()];
  return (
    inspect([rows, emitted], { depth: 20 }) + inspect(lists, { depth: 20 }) + JSON.stringify(lists)
  );
}

const expectNoSecret = async () => expect(await everythingVisible()).not.toContain(SECRET);

async function run(password = SECRET) {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(SecretJob, { password });
  await engine.runJobEngine();
  const ended = await engine.waitForJob(entry.jobRunIdentifier);
  return { entry, ended };
}

it('only the handler and waitForJob see the context and the output', async () => {
  SecretJob.seen = [];
  const { entry, ended } = await run();
  expect(SecretJob.seen).toEqual([{ password: SECRET }]);
  expect(SecretJob.seen[0]).toBeInstanceOf(PasswordContext);
  expect(ended.output).toEqual({ echo: SECRET });
  for (const shown of [entry.jobContext, ended.jobContext]) {
    expect(shown).toBeInstanceOf(EncryptedValue);
    expect(JSON.stringify(shown)).toBe('"[encrypted with old]"');
    expect(`${String(shown)} ${inspect(shown)}`).toBe('[encrypted with old] [encrypted with old]');
  }
  const [listed] = await bildad.jobs.listJobRunsForIdentifier(entry.jobRunIdentifier);
  expect(listed!.output).toBeInstanceOf(EncryptedValue);
  await expectNoSecret();
});

it('equal contexts have different ciphertexts, and an empty output is not encrypted', async () => {
  const [one, two] = await Promise.all([run('the same'), run('the same')]);
  const stored = await bildad.sql<{ context: string }>(
    `SELECT job_context::text AS context FROM bildad.job_runs WHERE id = ANY ($1)`,
    [[one.ended.id, two.ended.id]],
  );
  expect(stored[0]!.context).not.toBe(stored[1]!.context);
  handle = () => undefined;
  expect((await run()).ended.output).toBeNull();
  handle = () => null;
  expect((await run()).ended.output).toBeNull();
  handle = ({ password }) => ({ echo: password });
});

it('bulk jobs, changed jobs and retried jobs are encrypted', async () => {
  const { engine } = bildad;
  const entries = await engine.enqueueJobs(SecretJob, [
    { password: `${SECRET}1` },
    { password: `${SECRET}2` },
  ]);
  const changed = await engine.updateJob(entries[1]!, {
    context: { password: `${SECRET}3` },
  });
  expect(changed.jobContext).toBeInstanceOf(EncryptedValue);
  await expectNoSecret();
  SecretJob.seen = [];
  await engine.runJobEngine();
  for (const [index, { jobRunIdentifier }] of entries.entries()) {
    const ended = await engine.waitForJob(jobRunIdentifier);
    expect(ended.output).toEqual({ echo: SECRET + (index ? 3 : 1) });
    const retried = await engine.retryJob(ended);
    await engine.runJobEngine();
    expect(await engine.waitForJob(retried.jobRunIdentifier)).toMatchObject({
      output: ended.output,
    });
  }
  expect(SecretJob.seen).toHaveLength(4);
  await expectNoSecret();
});

it('errors, reasons and log lines do not contain the context', async () => {
  const lines: unknown[] = [];
  Logger.overrideLogger({
    log: (line: unknown) => lines.push(line),
    warn: (line: unknown) => lines.push(line),
    error: (line: unknown) => lines.push(line),
    debug: (line: unknown) => lines.push(line),
    fatal: (line: unknown) => lines.push(line),
  });
  handle = ({ password }) => {
    throw Object.assign(new RangeError(`no such user: ${password}`), {
      code: 'E_USER',
      detail: password,
    });
  };
  expect((await run()).ended).toMatchObject({
    reason: 'RangeError: redacted, because the job is encrypted',
    error: { name: 'RangeError', code: 'E_USER' },
  });
  handle = ({ password }, { signal }) => {
    void Promise.reject(new Error(password));
    return new Promise((_resolve, reject) =>
      signal.addEventListener('abort', () => reject(signal.reason as Error)),
    );
  };
  expect((await run()).ended.reason).toMatch(/^Error: redacted/);
  handle = ({ password }) => ({ echo: password });
  const { engine, jobs } = bildad;
  const [template] = (await jobs.listJobTemplates()).filter(({ code }) => code === 'SECRET');
  await jobs.updateJobTemplate(template!, {
    jobContextSchema: { properties: { password: { const: 'x' } } },
  });
  await expect(engine.enqueueJob(SecretJob, { password: SECRET })).rejects.toThrow(/password/);
  await jobs.updateJobTemplate(template!, {
    jobContextSchema: template!.jobContextSchema,
  });
  expect(JSON.stringify([lines, errors])).not.toContain(SECRET);
  expect(inspect([lines, errors], { depth: 9 })).not.toContain(SECRET);
  await expectNoSecret();
});

it.each<[string, (context: object) => Promise<unknown>]>([
  [
    'enqueueJobs without an array',
    (context) => bildad.engine.enqueueJobs('SECRET', context as never),
  ],
  [
    'updateJob with a misspelt field',
    (contxt) => bildad.engine.updateJob({ id: '1' }, { contxt } as never),
  ],
  [
    'updateJob with an array',
    (context) => bildad.engine.updateJob({ id: '1' }, [context] as never),
  ],
])('%s is refused with an error that does not contain the context', async (_call, call) => {
  const error: unknown = await call({ password: SECRET }).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(BildadConfigError);
  expect(inspect(error, { depth: 5 })).not.toContain(SECRET);
});

it('completeJob encrypts the output, and failJob redacts the error', async () => {
  const { engine } = bildad;
  let arrived!: (value?: unknown) => void;
  const arrival = new Promise((resolve) => (arrived = resolve));
  handle = (_context, { signal }) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(new Error('stopped')));
      arrived();
    });
  const running = await engine.enqueueAndRunJob(SecretJob, { password: SECRET });
  await arrival;
  const ended = await engine.completeJob(running, { by: SECRET });
  expect(ended.output).toBeInstanceOf(EncryptedValue);
  expect((await engine.waitForJob(running.jobRunIdentifier)).output).toEqual({
    by: SECRET,
  });
  const another = await engine.enqueueAndRunJob(SecretJob, {
    password: SECRET,
  });
  expect(await engine.failJob(another, new TypeError(SECRET))).toMatchObject({
    reason: 'TypeError: redacted, because the job is encrypted',
  });
  handle = ({ password }) => ({ echo: password });
  await expectNoSecret();
});

describe('keys', () => {
  it('after a rotation the old key still decrypts and the new key encrypts', async () => {
    const { engine, sql } = bildad;
    const before = await engine.enqueueJob(SecretJob, { password: SECRET });
    const rotated = await boot(BOTH);
    const after = await rotated.engine.enqueueJob(SecretJob, {
      password: `${SECRET}!`,
    });
    expect((after.jobContext as EncryptedValue).keyId).toBe('new');
    await rotated.engine.runJobEngine();
    for (const { jobRunIdentifier } of [before, after])
      await rotated.engine.waitForJob(jobRunIdentifier);
    const [row] = await sql(
      `SELECT output -> '$bildad' ->> 'key' AS key FROM bildad.job_runs WHERE job_run_identifier = $1`,
      [before.jobRunIdentifier],
    );
    expect(row).toEqual({ key: 'new' });
    // The first node does not have the new key.
    await expect(engine.waitForJob(after.jobRunIdentifier)).rejects.toMatchObject({
      code: 'JOB_ENCRYPTION_KEY',
      keyId: 'new',
    });
    await rotated.close();
  });

  it('a job whose key is missing is released, is reported, and runs where the key exists', async () => {
    const rotated = await boot(BOTH);
    const entry = await rotated.engine.enqueueJob(SecretJob, {
      password: SECRET,
    });
    const released = bildad.next('entry.released');
    const { start } = await bildad.engine.runJobEngine();
    expect(start).toMatchObject([{ ok: false, error: { keyId: 'new' } }]);
    expect((await released).error).toBeInstanceOf(JobEncryptionKeyError);
    expect(await bildad.jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject({
      status: 'AVAILABLE',
      retry: 0,
      currentJobRunId: null,
    });
    await rotated.engine.runJobEngine();
    expect(await rotated.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      output: { echo: SECRET },
    });
    await rotated.close();
  });

  it('a context that was copied from another job or changed fails its run with a reason', async () => {
    const { engine, sql } = bildad;
    SecretJob.seen = [];
    const [one, two, three] = await engine.enqueueJobs(SecretJob, [
      { password: SECRET },
      { password: 'another' },
      { password: 'a third' },
    ]);
    await sql(
      `UPDATE bildad.job_queue_entries SET job_context = (SELECT job_context FROM bildad.job_queue_entries WHERE id = $1) WHERE id = $2`,
      [one!.id, two!.id],
    );
    await sql(
      `UPDATE bildad.job_queue_entries SET job_context = jsonb_set(job_context, '{$bildad,sealed}', '"AAAA"') WHERE id = $1`,
      [three!.id],
    );
    await engine.runJobEngine();
    for (const { jobRunIdentifier } of [two!, three!])
      expect(await engine.waitForJob(jobRunIdentifier)).toMatchObject({
        result: 'FAILED',
        reason: expect.stringMatching(/^encryption: key "old" does not open/) as string,
        error: { name: 'JobEncryptionKeyError', code: 'JOB_ENCRYPTION_KEY' },
      });
    await engine.waitForJob(one!.jobRunIdentifier);
    expect(SecretJob.seen).toEqual([{ password: SECRET }]);
  });

  it('without keys, an app with an encrypted job does not start', async () => {
    const error = await bootError({
      url: bildad.database.url,
      providers: [SecretJob],
    });
    expect(error).toBeInstanceOf(JobEncryptionKeyError);
    expect(error.message).toMatch(/SecretJob .*needs the module's option/);
  });

  it('without keys, a producer cannot enqueue an encrypted job by code', async () => {
    const producer = await boot();
    const before = await producer.jobs.getNumberOfJobsInTheQueue();
    for (const enqueue of [
      producer.engine.enqueueJob('SECRET', { password: SECRET }),
      producer.engine.enqueueJobs('SECRET', [{ password: SECRET }]),
    ])
      await expect(enqueue).rejects.toThrow(JobEncryptionKeyError);
    expect(await producer.jobs.getNumberOfJobsInTheQueue()).toBe(before);
    await producer.close();
  });

  const hidden = 'c2VjcmV0IGtleSBvZiBtaW5lIHdpdGggMzMgYnl0ZXMhIQ==';
  it.each<[string, unknown, string]>([
    ['a text', hidden, 'encryption'],
    ['no keys', { current: 'a' }, 'encryption.keys'],
    ['an unknown field', { ...OLD, secret: hidden }, 'encryption.secret'],
    ['a short key', { keys: { a: hidden }, current: 'a' }, 'encryption.keys.a'],
    ['an invalid base64 key', { keys: { a: '!' + hidden }, current: 'a' }, 'encryption.keys.a'],
    ['an unknown current key', { ...OLD, current: 'b' }, 'encryption.current'],
    ['no current key', { keys: { a: key() } }, 'encryption.current'],
    ['a key as current', { ...OLD, current: hidden }, 'encryption.current'],
    ['a long key as current', { ...OLD, current: hidden.repeat(3) }, 'encryption.current'],
  ])('%s is refused with an error that contains no key', async (_what, encryption, field) => {
    const error = await bootError({
      url: bildad.database.url,
      bildad: { encryption: encryption as EncryptionOptions },
    });
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error).toMatchObject({ field });
    expect(inspect(error, { depth: 5 })).not.toContain(hidden);
  });

  it.each<[string, () => unknown]>([
    [
      'keys beside a factory',
      () =>
        BildadModule.forRootAsync({
          useFactory: () => ({}),
          encryption: { keys: { a: hidden }, current: 'a' },
        } as never),
    ],
    [
      'keys in a misspelt option',
      () =>
        bootError({
          url: bildad.database.url,
          bildad: { encryptionKeys: { a: hidden } } as never,
        }),
    ],
  ])('%s are refused with an error that does not contain them', async (_where, boot) => {
    const error: unknown = await Promise.resolve()
      .then(boot)
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(inspect(error, { depth: 5 })).not.toContain(hidden);
  });

  it('printed settings contain no keys', () => {
    const { bildad: runtime } = bildad.engine as unknown as {
      bildad: { settings: unknown; keyring: unknown };
    };
    const printed = inspect([runtime.settings, runtime.keyring], { depth: 9 });
    expect(printed).not.toContain(KEYS.old);
    expect(printed).not.toContain(Buffer.from(KEYS.old, 'base64').toString('hex'));
  });
});

describe('templates', () => {
  it('a template with encrypt: true encrypts, and a deploy does not change it', async () => {
    const { engine, jobs } = bildad;
    const [simple] = (await jobs.listJobTemplates()).filter(({ code }) => code === 'SIMPLE');
    expect(simple!.encrypt).toBe(false);
    await jobs.updateJobTemplate(simple!, { encrypt: true });
    const redeployed = await boot(OLD);
    const entry = await redeployed.engine.enqueueJob(SimpleJob, { say: SECRET });
    expect(entry.jobContext).toBeInstanceOf(EncryptedValue);
    await engine.runJobEngine();
    expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      output: SECRET,
    });
    await redeployed.close();
    await expectNoSecret();
    await jobs.updateJobTemplate(simple!, { encrypt: false });
  });
});

it('createJobTemplate accepts encrypt', async () => {
  const { engine, jobs } = bildad;
  const template = await jobs.createJobTemplate({
    code: 'BY_HAND',
    encrypt: true,
  });
  expect(template.encrypt).toBe(true);
  const entry = await engine.enqueueJob(template, { password: SECRET });
  expect(entry.jobContext).toBeInstanceOf(EncryptedValue);
  await expectNoSecret();
  expect(await engine.cancelJobs({ job: template })).toEqual({
    removed: 1,
    stopped: 0,
  });
  await expect(jobs.createJobTemplate({ code: 'WRONG', encrypt: 'yes' as never })).rejects.toThrow(
    /^encrypt must be true or false, got 'yes'/,
  );
});

it('an entity that is saved keeps its encrypted context', async () => {
  const { engine, dataSource, sql } = bildad;
  const { JobQueueEntry } = await import('nestjs-bildad');
  const { id, jobRunIdentifier } = await engine.enqueueJob(SecretJob, {
    password: SECRET,
  });
  const repository = dataSource.getRepository(JobQueueEntry);
  const entry = await repository.findOneByOrFail({ id });
  await repository.save(Object.assign(entry, { priority: 2 }));
  expect(await sql(`SELECT priority FROM bildad.job_queue_entries WHERE id = $1`, [id])).toEqual([
    { priority: 2 },
  ]);
  await engine.runJobEngine();
  expect(await engine.waitForJob(jobRunIdentifier)).toMatchObject({
    output: { echo: SECRET },
  });
});
