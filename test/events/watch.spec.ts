import { JobNotFoundError, type JobUpdate, type WatchOptions } from 'nestjs-bildad';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';
import { brief, until } from '../support/watch.js';

// A job is watched from its node or from another one, from its beginning or from a resume point.

let bildad: TestApp;
let otherNodes: TestApp[] = [];
beforeEach(async () => {
  bildad = await bootApp({ providers: [GatedJob, SimpleJob] });
});
afterEach(async () => {
  await Promise.all(otherNodes.splice(0).map((one) => one.close()));
  await bildad.close();
});

/** A second node without ticks: it starts no jobs by itself. */
async function node(options: Parameters<typeof bootApp>[0] = {}): Promise<TestApp> {
  const { database } = bildad;
  const app = await bootApp({ providers: [GatedJob], database, ...options });
  otherNodes.push(app);
  return app;
}

const all = async (app: TestApp, identifier: string, options?: WatchOptions): Promise<string[]> =>
  (await until(app.jobs.watch(identifier, options))).map(brief);

async function enqueue(context: object = {}, options: object = {}) {
  const { jobRunIdentifier } = await bildad.engine.enqueueJob(GatedJob, context, options);
  return jobRunIdentifier;
}

it('reports the state of a job and all its updates', async () => {
  const name = await enqueue({}, { maxRetries: 1 });
  const watched = all(bildad, name);
  await expect.poll(() => watching()).toBe(1);
  await bildad.engine.runJobEngine();
  const first = await GatedJob.arrival();
  first.job.progress(0.5, 'half');
  first.job.log('a line');
  first.job.stream('a chunk');
  first.job.stream({ n: 1 });
  first.door.open(Promise.reject(new Error('try again')));
  await bildad.next('run.finished');
  await bildad.engine.runJobEngine();
  const second = await GatedJob.arrival();
  second.door.open('done');
  const updates = await watched;
  // A wait that ends before the watcher reads it is skipped. So is progress.
  const certain = (one: string) => !/^(progress|queued 1)/.test(one);
  expect(updates.filter(certain)).toEqual([
    'queued 0',
    'running 0',
    'log a line',
    'chunk "a chunk"',
    'chunk {"n":1}',
    'retry 0 FAILED',
    'running 1',
    'end 1 SUCCEEDED',
  ]);
  expect(updates).toContain('progress 0.5 half');
  expect(watching()).toBe(0);
});

/** The number of watched jobs on this node: 0 after all watchers have left. */
function watching(app = bildad): number {
  const { watcher } = (app.engine as any).bildad;
  const { callers, topic } = watcher.signals;
  expect(topic.local.size).toBe(callers.size);
  return callers.size;
}

it('a watcher on another node receives updates live, and a late one starts with the newest chunks', async () => {
  const other = await node({ options: { tickInterval: '1h' } });
  const name = await enqueue();
  await bildad.engine.runJobEngine();
  const { job, door } = await GatedJob.arrival();
  for (let n = 0; n < 1_500; n++) job.stream(n);
  job.progress(0.25, 'now');
  // Without a watcher, no chunks are written.
  await expect.poll(() => bildad.jobs.progressOf(name)).toMatchObject({ message: 'now' });
  expect(await noteKinds()).toEqual(['progress']);

  // This node does not tick. It listens only while it watches or waits.
  const here = bildad.jobs.watch(name);
  expect(brief((await here.next()).value)).toBe('running 0');
  const slow = { pollInterval: '1m' } as const;
  const seen: JobUpdate[] = [];
  const watched = until(other.jobs.watch(name, slow), (update) => {
    seen.push(update);
    return false;
  });
  await expect.poll(() => seen.filter(({ type }) => type === 'stream').length).toBe(1_000);
  expect(seen.map(brief).slice(0, 4)).toEqual([
    'running 0',
    'progress 0.25 now',
    'gap 500',
    'chunk 500',
  ]);
  job.stream('live');
  await expect.poll(() => brief(seen.at(-1)!)).toBe('chunk "live"');
  door.open(null);
  expect(brief((await watched).at(-1)!)).toBe('end 0 SUCCEEDED');
  await here.return!();
});

const noteKinds = async () =>
  (
    await bildad.sql<{ kind: string }>(
      'SELECT DISTINCT kind FROM bildad.job_run_notes ORDER BY kind',
    )
  ).map(({ kind }) => kind);

it('updates that are no longer available are reported as a gap', async () => {
  const name = await enqueue();
  await bildad.engine.runJobEngine();
  const { job, door } = await GatedJob.arrival();
  const updates = bildad.jobs.watch(name);
  expect(brief((await updates.next()).value)).toBe('running 0');
  for (let n = 0; n < 1_200; n++) job.stream(n);
  const unsendable: { self?: unknown } = {};
  unsendable.self = unsendable;
  job.stream(unsendable as never);
  job.stream('behind');
  const seen = (await until(updates, (one) => brief(one).includes('behind')))
    .map(brief)
    .filter((one) => !/^chunk \d/.test(one));
  expect(seen).toEqual(['gap 202', 'gap 1', 'chunk "behind"']);
  door.open(null);
  await bildad.engine.waitForJob(name);
});

it('a finished job reports its end only, and a watcher resumes after an update', async () => {
  const name = await enqueue({}, { maxRetries: 0 });
  const [queued] = await until(bildad.jobs.watch(name), () => true);
  await bildad.engine.runJobEngine();
  const { job, door } = await GatedJob.arrival();
  const [running] = await until(bildad.jobs.watch(name), () => true);
  job.stream('seen');
  const chunk = (await until(bildad.jobs.watch(name), ({ type }) => type === 'stream')).at(-1)!;
  expect(chunk.id).toBe('0.1.1');
  door.open('done');
  await bildad.engine.waitForJob(name);
  const end = ['end 0 SUCCEEDED'];
  expect((await all(bildad, name)).at(-1)).toBe(end[0]);
  const behind = (update: JobUpdate) => all(bildad, name, { after: update.id });
  expect(await behind(queued!)).toEqual(['running 0', 'chunk "seen"', ...end]);
  expect(await behind(running!)).toEqual(['chunk "seen"', ...end]);
  expect(await behind(chunk)).toEqual(end);
  expect(await all(bildad, name, { after: '0.2.1' })).toEqual([]);
  // The id of a NestJS error event.
  expect(await all(bildad, name, { after: '1' })).toEqual(await all(bildad, name));
});

/** Makes each write of notes take this long, like a slow database. */
async function slowDownNoteWrites(seconds: number): Promise<void> {
  await bildad.sql(
    `CREATE FUNCTION bildad.slow() RETURNS trigger LANGUAGE plpgsql AS
     $$ BEGIN PERFORM pg_sleep(${seconds}); RETURN NULL; END $$`,
  );
  await bildad.sql(
    `CREATE TRIGGER slow BEFORE INSERT ON bildad.job_run_notes
     FOR EACH STATEMENT EXECUTE FUNCTION bildad.slow()`,
  );
}

it.each([true, false])(
  'the last chunks of a run are reported before its end (seen running: %s)',
  async (seenRunning) => {
    await slowDownNoteWrites(0.15);
    const name = await enqueue();
    const updates = bildad.jobs.watch(name);
    expect(brief((await updates.next()).value)).toBe('queued 0');
    await bildad.engine.runJobEngine();
    const { job, door } = await GatedJob.arrival();
    if (seenRunning) expect(brief((await updates.next()).value)).toBe('running 0');
    const finished = bildad.next('run.finished');
    for (const chunk of ['one', 'two', 'three']) job.stream(chunk);
    door.open('done');
    await finished;
    expect((await until(updates)).map(brief)).toEqual([
      ...(seenRunning ? [] : ['running 0']),
      'chunk "one"',
      'chunk "two"',
      'chunk "three"',
      'end 0 SUCCEEDED',
    ]);
  },
);

it('no run is skipped, even after 25 runs', async () => {
  const { jobRunIdentifier: name } = await bildad.engine.enqueueJob(
    SimpleJob,
    { fail: 'again' },
    { maxRetries: 24 },
  );
  const [first] = await until(bildad.jobs.watch(name), () => true);
  for (let run = 0; run < 25; run++) {
    const ended = bildad.next('run.finished');
    await bildad.engine.runJobEngine();
    await ended;
  }
  const updates = await all(bildad, name, { after: first!.id });
  const runs = Array.from({ length: 25 }, (_one, run) => [
    `running ${run}`,
    `${run < 24 ? 'retry' : 'end'} ${run} FAILED`,
  ]);
  expect(updates).toEqual(runs.flat());
});

it('a job that leaves the queue without a run has an end', async () => {
  const entry = await bildad.engine.enqueueJob(GatedJob, {});
  const updates = bildad.jobs.watch(entry.jobRunIdentifier, {
    pollInterval: 100,
  });
  expect(brief((await updates.next()).value)).toBe('queued 0');
  await bildad.engine.rescheduleJob(entry, '1h');
  const { value } = await updates.next();
  expect(value).toMatchObject({ type: 'queued', retry: 0 });
  expect(value.runAt.getTime()).toBeGreaterThan(entry.runAt.getTime());
  await bildad.engine.cancelJob(entry);
  expect((await until(updates)).map(brief)).toEqual(['end 0 null']);
});

it('a watcher that resumes after a cancelled wait receives the end', async () => {
  const entry = await bildad.engine.enqueueJob(GatedJob, {}, { maxRetries: 1 });
  const name = entry.jobRunIdentifier;
  const updates = bildad.jobs.watch(name);
  await updates.next();
  await bildad.engine.runJobEngine();
  const { job, door } = await GatedJob.arrival();
  job.stream('seen');
  const finished = bildad.next('run.finished');
  door.open(Promise.reject(new Error('try again')));
  await finished;
  const queued = (await until(updates, (one) => brief(one) === 'queued 1')).at(-1)!;
  expect(queued.id).toBe('1.0.0');
  await bildad.engine.cancelJob(entry);
  const after = queued.id;
  // Updates of the earlier run that the watcher has seen are not repeated.
  const [end, ...more] = await until(bildad.jobs.watch(name, { after }));
  expect(end).toMatchObject({ type: 'end', retry: 1, jobRunId: null });
  expect(more).toEqual([]);
  expect(await all(bildad, name, { after: end!.id })).toEqual(['end 1 null']);
  await expect(all(bildad, 'none', { after })).rejects.toBeInstanceOf(JobNotFoundError);
});

it('a watcher that leaves, aborts or fails validation releases its resources', async () => {
  const name = await enqueue();
  const { jobs } = bildad;
  const controller = new AbortController();
  const aborted = until(jobs.watch(name, { signal: controller.signal }));
  const left = jobs.watch(name);
  await left.next();
  const pending = left.next();
  await expect.poll(() => watching()).toBe(1);
  controller.abort(new Error('enough'));
  await expect(aborted).rejects.toThrow('enough');
  await left.return!();
  expect(await pending).toMatchObject({ done: true });
  expect(watching()).toBe(0);

  await expect(until(jobs.watch('none'))).rejects.toBeInstanceOf(JobNotFoundError);
  await expect(until(jobs.watch(name, { signal: AbortSignal.abort() }))).rejects.toThrow(/aborted/);
  expect(() => jobs.watch(name, { pollInterval: 1 })).toThrow(/pollInterval/);
  expect(() => jobs.watch(name, { signal: {} as AbortSignal })).toThrow(/signal/);
  expect(() => jobs.watch('')).toThrow(/jobRunIdentifier/);
  expect(watching()).toBe(0);
});

it('watchers share their reads, and a stopping engine ends all watches', async () => {
  const names = await Promise.all(Array.from({ length: 300 }, () => enqueue()));
  const other = await node();
  const store = (other.engine as any).bildad.store.db;
  const statements: string[] = [];
  const query = store.query.bind(store);
  store.query = (sql: string, parameters: unknown[]) => {
    statements.push(sql);
    return query(sql, parameters);
  };
  const watched = names.map((name) => all(other, name, { pollInterval: '200ms' }));
  await expect.poll(() => watching(other)).toBe(300);
  const noteReads = () => statements.filter((sql) => sql.includes('job_run_notes')).length;
  await expect.poll(noteReads).toBeGreaterThan(10);
  const before = noteReads();
  const began = performance.now();
  await expect.poll(noteReads).toBeGreaterThan(before + 12);
  const rounds = (performance.now() - began) / 200;
  // 100 watchers share a statement. A few reads are not aligned with the others.
  expect(noteReads() - before).toBeLessThan(20 * rounds);
  await other.app.close();
  otherNodes = [];
  expect(new Set((await Promise.all(watched)).flat())).toEqual(new Set(['queued 0']));
});

it('the run time of a queued keepLatest job is correct in a time zone east of UTC', async () => {
  await bildad.database.sql(
    `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database()); END $$`,
  );
  const east = await node();
  const options = { unique: { key: 'one', onConflict: 'keepLatest' as const } };
  await enqueue({}, options);
  await bildad.engine.runJobEngine();
  const { door } = await GatedJob.arrival();
  const [first] = await until(east.jobs.watch(await enqueue({}, options)), () => true);
  expect(first).toMatchObject({
    type: 'queued',
    runAt: new Date('9999-12-31T23:59:59.999Z'),
  });
  door.open(null);
});
