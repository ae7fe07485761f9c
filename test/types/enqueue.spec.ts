import { beforeAll, describe, expect, it } from 'vitest';
import { compileErrors } from './compiler.js';

// The context's type follows from the handler class: a context that the engine would reject at run
// time does not compile.

const PREAMBLE = `
import { BildadJob, type JobContext, type JobEngineService, type JobExecution, type JobHandler,
  type JobRun, type JobTemplate } from 'nestjs-bildad';
import type { EntityManager, Repository } from 'typeorm';
class SendEmailContext { to!: string; subject!: string; copies?: number; }
@BildadJob({ code: 'SEND_EMAIL' })
class SendEmailJob implements JobHandler<SendEmailContext, { messageId: string }> {
  runJob(context: SendEmailContext, job: JobExecution) { return { messageId: context.to + job.attempt }; }
}
@BildadJob({ code: 'NIGHTLY' })
class NightlyJob { runJob() {} }
declare const engine: JobEngineService;
declare const template: JobTemplate;
declare const manager: EntityManager;
declare const runs: Repository<JobRun>;
const email = { to: 'ada@example.com', subject: 'Hi' };
`;

const COMPILES = {
  'a class and its context': `await engine.enqueueJob(SendEmailJob, email);`,
  'an optional property': `await engine.enqueueJob(SendEmailJob, { ...email, copies: 2 });`,
  'the inferred type': `const c: JobContext<typeof SendEmailJob> = email; const s: SendEmailContext = c;`,
  'all options': `await engine.enqueueJob(SendEmailJob, email, { jobRunIdentifier: 'x', priority: 1,
    delay: '5m', timeout: 5000, maxRetries: 0, backoff: { type: 'fixed', delay: '1s' }, manager });`,
  'a Date and minutes': `await engine.enqueueJob(SendEmailJob, email, { runAt: new Date(), timeoutInMinutes: 5 });`,
  'many contexts': `const entries = await engine.enqueueJobs(SendEmailJob, [email, email]); entries[0]?.id.length;`,
  'contexts from an async generator': `async function* read() { yield email; }
    const entries = await engine.enqueueJobs(SendEmailJob, read()); const id: string = entries[0]!.id;
    await engine.enqueueJobs(SendEmailJob, new Set([email]), { manager, delay: '1m' }); id.length;`,
  keys: `const entry = await engine.enqueueJob(SendEmailJob, email, { unique: { key: 'x', until: 'started', within: '1h',
      onConflict: 'keepLatest' } }); const d: boolean = entry.deduplicated; d;
    await engine.enqueueJob(SendEmailJob, email, { debounce: { key: 'x', wait: '1s', maxWait: '1m' } });
    await engine.enqueueJob(SendEmailJob, email, { throttle: { key: 'x', every: 5000 } });
    if (entry.status === 'DONE') entry.currentJobRunId?.length;`,
  'triggering the engine': `const { jobQueueEntry, jobEngineResults } =
    await engine.enqueueJobAndTriggerEngine(SendEmailJob, email, { priority: 1 });
    const n: number = engine.getCounts(jobEngineResults.start).okCount; jobQueueEntry.jobRunIdentifier;`,
  'running at once': `const run: JobRun = await engine.enqueueAndRunJob(SendEmailJob, email);`,
  'a code and any object': `await engine.enqueueJob('SEND_EMAIL', { anything: [1, 'two'] });`,
  'a template and any object': `await engine.enqueueJob(template, { anything: true });`,
  'a handler that takes no context': `await engine.enqueueJob(NightlyJob, {});`,
  'narrowing a result of the engine': `for (const o of (await engine.runJobEngine()).start)
    if (o.ok) o.jobRun.id; else o.error;`,
  'conditions on a repository of runs': `await runs.findOneBy({ jobRunIdentifier: 'x', status: 'DONE' });
    await runs.find({ where: { result: 'FAILED' }, order: { id: 'DESC' } });`,
  'the result of waitForJob': `const { output } = await engine.waitForJob(SendEmailJob, 'x', { timeout: '5s' });
    const id: string | undefined = output?.messageId;
    const same = await engine.waitForJob<SendEmailJob>('x'); const again: string | undefined = same.output?.messageId;
    const any: unknown = (await engine.waitForJob('x')).output;`,
  'a result with the types of its JSON': `class At { runJob() { return { at: new Date(), list: [new Date()], drop() {} }; } }
    const { output } = await engine.waitForJob(At, 'x'); const at: string = output!.at; const list: string[] = output!.list;`,
  'a transaction, and manager: null': `const n: number = await engine.transaction(async (manager) => {
    await manager.query('SELECT 1'); await engine.enqueueJob(SendEmailJob, email, { manager: null }); return 1; });`,
  'a result of the declared type': `const ok: JobHandler<object, number> = { runJob: () => 1 };`,
};

const DOES_NOT_COMPILE: Record<string, [text: string, error: RegExp]> = {
  'a result of another type': [
    `const n: number = (await engine.waitForJob(SendEmailJob, 'x')).output!.messageId;`,
    /'string' is not assignable to type 'number'/,
  ],
  'a missing property': [
    `await engine.enqueueJob(SendEmailJob, { to: 'x' });`,
    /'subject' is missing/,
  ],
  'a property of a wrong type': [
    `await engine.enqueueJob(SendEmailJob, { ...email, to: 5 });`,
    /'number' is not assignable to type 'string'/,
  ],
  'an unknown property': [
    `await engine.enqueueJob(SendEmailJob, { to: 'x', subject: 'y', bcc: 'z' });`,
    /'bcc' does not exist/,
  ],
  'no context': [`await engine.enqueueJob(SendEmailJob);`, /Expected 2-3 arg/],
  'text in place of a context': [
    `await engine.enqueueJob('SEND_EMAIL', 'text');`,
    /'string' is not assignable to .*'object'/,
  ],
  'one wrong context of several': [
    `await engine.enqueueJobs(SendEmailJob, [email, { to: 'x' }]);`,
    /'subject' is missing/,
  ],
  'one context for enqueueJobs': [`await engine.enqueueJobs(SendEmailJob, email);`, /readonly/],
  'an identifier for enqueueJobs': [
    `await engine.enqueueJobs(SendEmailJob, [email], { jobRunIdentifier: 'x' });`,
    /'jobRunIdentifier' does not exist/,
  ],
  'a unique key for enqueueJobs': [
    `await engine.enqueueJobs(SendEmailJob, [email], { unique: { key: 'x' } });`,
    /'unique' does not exist/,
  ],
  'a wrong context from an async generator': [
    `async function* read() { yield { to: 'x' }; } await engine.enqueueJobs(SendEmailJob, read());`,
    /'subject' is missing/,
  ],
  'an unknown onConflict': [
    `await engine.enqueueJob(SendEmailJob, email, { unique: { key: 'x', onConflict: 'wait' } });`,
    /"wait"/,
  ],
  'a key without its name': [
    `await engine.enqueueJob(SendEmailJob, email, { throttle: { every: '1s' } });`,
    /'key' is missing/,
  ],
  'a missing property when triggering': [
    `await engine.enqueueJobAndTriggerEngine(SendEmailJob, { to: 'x' });`,
    /'subject' is missing/,
  ],
  'a missing property when running at once': [
    `await engine.enqueueAndRunJob(SendEmailJob, { subject: 'x' });`,
    /'to' is missing/,
  ],
  'a transaction when triggering': [
    `await engine.enqueueJobAndTriggerEngine(SendEmailJob, email, { manager });`,
    /'manager' does not exist/,
  ],
  'a transaction when running at once': [
    `await engine.enqueueAndRunJob(SendEmailJob, email, { manager });`,
    /'manager' does not exist/,
  ],
  'an unknown option': [
    `await engine.enqueueJob(SendEmailJob, email, { prio: 1 });`,
    /'prio' does not exist/,
  ],
  'a function as backoff of an entry': [
    `await engine.enqueueJob(SendEmailJob, email, { backoff: () => 5 });`,
    /not assignable/,
  ],
  'a class without runJob': [
    `class Idle {} await engine.enqueueJob(Idle, {});`,
    /'typeof Idle' is not assignable/,
  ],
  'a handler of another context': [
    `class Wrong implements JobHandler<SendEmailContext> { runJob(context: { to: number }) { return context; } }`,
    /'runJob' in type 'Wrong' is not assignable/,
  ],
  'a handler of another result': [
    `class Wrong implements JobHandler<object, number> { runJob() { return 'text'; } }`,
    /'runJob' in type 'Wrong' is not assignable/,
  ],
  'a decorator without a code': [
    `@BildadJob({ timeout: '5m' }) class Wrong { runJob() {} }`,
    /'code' is missing/,
  ],
  'an unknown status of a run': [`await runs.findOneBy({ status: 'SLEEPING' });`, /"SLEEPING"/],
};

let errors: Record<string, string[]>;
beforeAll(() => {
  const bad = Object.entries(DOES_NOT_COMPILE).map(([what, [text]]) => [what, text]);
  errors = compileErrors(
    Object.fromEntries(
      [...Object.entries(COMPILES), ...bad].map(([what, text]) => [what, PREAMBLE + text]),
    ),
  );
}, 60_000);

describe('compiles', () => {
  it.each(Object.keys(COMPILES))('%s', (what) => {
    expect(errors[what]).toEqual([]);
  });
});

describe('does not compile', () => {
  it.each(Object.entries(DOES_NOT_COMPILE))('%s', (what, [, error]) => {
    expect(errors[what]).toHaveLength(1);
    expect(errors[what]![0]).toMatch(error);
  });
});
