import fc from 'fast-check';
import type { UniqueConflict } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// Whatever is done to the jobs of a key, in whatever order: the engine does what a model of docs/identity.md says.

interface Add {
  do: 'add';
  until: 'started' | 'finished';
  within: boolean;
  onConflict: Exclude<UniqueConflict, 'throw'>;
}
type Step = Add | { do: 'pass' } | { do: 'succeed' | 'fail' | 'cancel'; which: number };

interface ModelJob {
  id: string;
  context: string;
  state: 'waiting' | 'running' | 'over';
  runs: number;
  /** For when the holder has left the queue. */
  kept: boolean;
  /** For when `within` is over. */
  later: boolean;
}

/** A key, and all jobs that were ever added under it. */
class Model {
  readonly jobs: ModelJob[] = [];
  private holder: ModelJob | undefined;
  private next: ModelJob | undefined;
  private until: Add['until'] = 'finished';
  private within = false;

  /** What an add does: whether a job is added; else the one that holds the key. */
  expected(add: Add, context: string): { added: boolean; job?: ModelJob } {
    this.advance();
    const { holder, next } = this;
    const taken = this.taken();
    if (!holder || taken === 'no') return { added: true };
    const latest = add.onConflict === 'keepLatest';
    if (latest && next?.state === 'waiting') {
      next.context = context;
      return { added: false, job: next };
    }
    if (add.onConflict === 'ignore') return { added: false, job: holder };
    if (holder.state === 'waiting' && taken === 'long') {
      if (!latest) holder.later = false;
      if (add.onConflict !== 'reschedule') {
        holder.context = context;
        this.termsOf(add);
      }
      return { added: false, job: holder };
    }
    return latest ? { added: true } : { added: false, job: holder };
  }

  added(add: Add, context: string, id: string): ModelJob {
    const taken = this.taken();
    const job: ModelJob = {
      id,
      context,
      state: 'waiting',
      runs: 0,
      kept: taken === 'long',
      later: taken === 'within',
    };
    this.jobs.push(job);
    if (job.kept) this.next = job;
    else {
      this.holder = job;
      this.termsOf(add);
    }
    return job;
  }

  /** What a pass starts. */
  pass(): ModelJob[] {
    this.advance();
    return this.jobs.filter(({ state, kept, later }) => state === 'waiting' && !kept && !later);
  }

  private termsOf({ until, within }: Add): void {
    this.until = until;
    this.within = within;
  }

  private advance(): void {
    const { holder, next } = this;
    if (!next || holder?.state !== 'over') return;
    next.kept = false;
    next.later = this.within && holder.runs > 0;
    this.holder = next;
    this.next = undefined;
    // It may have been cancelled.
    this.advance();
  }

  private taken(): 'no' | 'long' | 'within' {
    const { holder } = this;
    if (!holder) return 'no';
    const holds =
      this.until === 'started'
        ? holder.state === 'waiting' && holder.runs === 0
        : holder.state !== 'over';
    if (holds) return 'long';
    return this.within && holder.runs > 0 ? 'within' : 'no';
  }
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant('add' as const),
        until: fc.constantFrom('started' as const, 'finished' as const),
        within: fc.boolean(),
        onConflict: fc.constantFrom(
          'ignore' as const,
          'replace' as const,
          'reschedule' as const,
          'keepLatest' as const,
          'keepLatest' as const,
        ),
      }),
    },
    { weight: 3, arbitrary: fc.constant({ do: 'pass' as const }) },
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constantFrom(
          'succeed' as const,
          'succeed' as const,
          'fail' as const,
          'cancel' as const,
        ),
        which: fc.nat(5),
      }),
    },
  ),
  { minLength: 4, maxLength: 24 },
);

let bildad: TestApp;
let keys = 0;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [GatedJob],
    options: { concurrency: 100 },
  });
});
afterAll(() => bildad.close());

class Play {
  private readonly model = new Model();
  /** Under way: which runs. */
  private readonly runs = new Map<string, string>();
  private readonly key = `model ${keys++}`;
  private contexts = 0;

  async step(step: Step): Promise<void> {
    if (step.do === 'add') await this.add(step);
    else if (step.do === 'pass') await this.pass();
    else await this.end(step.do, step.which);
    const queued = await bildad.jobs.listAllJobsInTheQueue();
    expect(
      queued.map(({ id, status, jobContext, scheduled }) => ({
        id,
        status,
        context: (jobContext as { name: string }).name,
        scheduled,
      })),
    ).toEqual(
      this.model.jobs
        .filter(({ state }) => state !== 'over')
        .map(({ id, state, context, kept, later }) => ({
          id,
          status: state === 'waiting' ? 'AVAILABLE' : 'RUNNING',
          context,
          scheduled: kept || later,
        })),
    );
  }

  /** Slots are free again, the queue is empty. */
  async leave(): Promise<void> {
    for (const { id, status } of await bildad.jobs.listAllJobsInTheQueue())
      if (status === 'RUNNING') await bildad.engine.completeJob({ id: this.runs.get(id)! });
      else await bildad.engine.cancelJob({ id });
  }

  private async add(add: Add): Promise<void> {
    const { until, within, onConflict } = add;
    const name = `context ${this.contexts++}`;
    const entry = await bildad.engine.enqueueJob(
      GatedJob,
      { name },
      {
        maxRetries: 1,
        unique: {
          key: this.key,
          until,
          onConflict,
          ...(within && { within: '1h' }),
        },
      },
    );
    const { added, job } = this.model.expected(add, name);
    const told = job ?? this.model.added(add, name, entry.id);
    expect(entry).toMatchObject({ id: told.id, deduplicated: !added });
  }

  private async pass(): Promise<void> {
    const { start } = await bildad.engine.runJobEngine();
    const started = start.map((outcome) => {
      if (!outcome.ok) throw outcome.error;
      const { id, jobQueueEntryId } = outcome.jobRun;
      this.runs.set(jobQueueEntryId, id);
      return jobQueueEntryId;
    });
    const due = this.model.pass();
    expect(new Set(started)).toEqual(new Set(due.map(({ id }) => id)));
    for (const job of due) {
      job.state = 'running';
      job.runs++;
      await GatedJob.arrival();
    }
  }

  private async end(how: 'succeed' | 'fail' | 'cancel', which: number): Promise<void> {
    const wanted = how === 'cancel' ? 'waiting' : 'running';
    const jobs = this.model.jobs.filter(({ state }) => state === wanted);
    const job = jobs[which % jobs.length];
    if (!job) return;
    job.state = 'over';
    if (how === 'cancel') {
      await bildad.engine.cancelJob(job);
      return;
    }
    const run = { id: this.runs.get(job.id)! };
    if (how === 'succeed') await bildad.engine.completeJob(run);
    else {
      await bildad.engine.failJob(run, new Error('no'));
      if (job.runs < 2) job.state = 'waiting';
    }
  }
}

it('jobs of one key', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (steps) => {
      const play = new Play();
      try {
        for (const step of steps) await play.step(step);
      } finally {
        await play.leave();
      }
    }),
    { numRuns: 30 },
  );
}, 60_000);
