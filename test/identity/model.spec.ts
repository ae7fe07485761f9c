import fc from 'fast-check';
import type { UniqueConflict } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// Random operations on the jobs of a key: the engine behaves like a model of docs/identity.md.

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
  /** Waits until the holder of the key leaves the queue. */
  held: boolean;
  /** Waits until `within` is over. */
  delayed: boolean;
}

/** A key and all jobs that were enqueued with it. */
class Model {
  readonly jobs: ModelJob[] = [];
  private holder: ModelJob | undefined;
  private next: ModelJob | undefined;
  private until: Add['until'] = 'finished';
  private within = false;

  /** Whether an enqueue inserts a job, and if not, the job that holds the key. */
  expected(add: Add, context: string): { added: boolean; job?: ModelJob } {
    this.advance();
    const { holder, next } = this;
    const keyState = this.keyStateOfHolder();
    if (!holder || keyState === 'no') return { added: true };
    const latest = add.onConflict === 'keepLatest';
    if (latest && next?.state === 'waiting') {
      next.context = context;
      return { added: false, job: next };
    }
    if (add.onConflict === 'ignore') return { added: false, job: holder };
    if (holder.state === 'waiting' && keyState === 'held') {
      if (!latest) holder.delayed = false;
      if (add.onConflict !== 'reschedule') {
        holder.context = context;
        this.setTerms(add);
      }
      return { added: false, job: holder };
    }
    return latest ? { added: true } : { added: false, job: holder };
  }

  added(add: Add, context: string, id: string): ModelJob {
    const keyState = this.keyStateOfHolder();
    const job: ModelJob = {
      id,
      context,
      state: 'waiting',
      runs: 0,
      held: keyState === 'held',
      delayed: keyState === 'within',
    };
    this.jobs.push(job);
    if (job.held) this.next = job;
    else {
      this.holder = job;
      this.setTerms(add);
    }
    return job;
  }

  /** The jobs that a pass starts. */
  pass(): ModelJob[] {
    this.advance();
    return this.jobs.filter(({ state, held, delayed }) => state === 'waiting' && !held && !delayed);
  }

  private setTerms({ until, within }: Add): void {
    this.until = until;
    this.within = within;
  }

  private advance(): void {
    const { holder, next } = this;
    if (!next || holder?.state !== 'over') return;
    next.held = false;
    next.delayed = this.within && holder.runs > 0;
    this.holder = next;
    this.next = undefined;
    // The next holder may have been cancelled.
    this.advance();
  }

  private keyStateOfHolder(): 'no' | 'held' | 'within' {
    const { holder } = this;
    if (!holder) return 'no';
    const holds =
      this.until === 'started'
        ? holder.state === 'waiting' && holder.runs === 0
        : holder.state !== 'over';
    if (holds) return 'held';
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

class Simulation {
  private readonly model = new Model();
  /** The run of each running entry. */
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
        .map(({ id, state, context, held, delayed }) => ({
          id,
          status: state === 'waiting' ? 'AVAILABLE' : 'RUNNING',
          context,
          scheduled: held || delayed,
        })),
    );
  }

  /** Ends all jobs: frees the slots and empties the queue. */
  async endAll(): Promise<void> {
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
    const expected = job ?? this.model.added(add, name, entry.id);
    expect(entry).toMatchObject({ id: expected.id, deduplicated: !added });
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

it('random operations on one key match the model', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (steps) => {
      const simulation = new Simulation();
      try {
        for (const step of steps) await simulation.step(step);
      } finally {
        await simulation.endAll();
      }
    }),
    { numRuns: 30 },
  );
}, 60_000);
