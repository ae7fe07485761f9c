import { Inject, Injectable } from '@nestjs/common';
import type { JobEngineResults } from '../../node/pass.js';
import type { JobOutcome } from '../../node/launch.js';
import type { EntryReference } from '../../lifecycle/enqueue/enqueue.sql.js';
import type { ContextSource } from '../../lifecycle/enqueue/context-source.js';
import type { BulkOptions, EnqueueOptions } from '../../lifecycle/enqueue/enqueue-options.js';
import { JobNotAvailableError, RunNotActiveError } from '../../job/errors.js';
import type { ContextOf, JobHandlerClass } from '../../job/job-handler.js';
import type { JsonSchema } from '../../job/json.js';
import {
  contextContract,
  encodeContext,
  type ContextClass,
} from '../../context/context-contract.js';
import { countOutcomes } from '../../job/outcome-counts.js';
import { JobProcess } from '../../lifecycle/run/job-process.js';
import { outside } from '../../database/transactions/current-transaction.js';
import type { JobQueueEntry, JobRun, JobTemplate } from '../../database/entities/index.js';
import { findEntry, findLastRun, findRuns } from '../../lifecycle/run/run.sql.js';
import { ChangedJobs } from './changed-jobs.js';
import { EngineSwitch } from '../module/engine-starter.js';
import { refuseKeys, refuseLater } from '../handlers/declaration-refusals.js';
import { idOf } from './ids.js';
import { referenceTo } from '../handlers/declaration.js';
import { BILDAD_RUNTIME, type BildadRuntime } from '../module/runtime.js';

/** A job: its handler class (the context is then typed), its template's code, or its template. */
export type Job = JobHandlerClass | string | JobTemplate;

/** The context a job takes: the handler's own type, else any object. */
export type JobContext<J> = J extends JobHandlerClass<infer H> ? ContextOf<H> : object;

type WithoutManager = Omit<EnqueueOptions, 'manager'>;

/**
 * The verbs of a job's life; each names the function of Elixir's `Bildad.Job.JobEngine` it ports.
 * Runs and entries may be given as entities or as anything with their `id`.
 */
@Injectable()
export class JobEngineService extends ChangedJobs {
  constructor(
    @Inject(BILDAD_RUNTIME) protected readonly bildad: BildadRuntime,
    private readonly engineSwitch: EngineSwitch,
  ) {
    super();
  }

  /**
   * Starts this node's engine where the module has `autoStart: false`: from now on it claims. Called again, or where it
   * runs already, it has no effect; a producer runs no jobs all the same. Resolves when hosts of isolated jobs are ready.
   * @throws BildadConfigError before the app is initialized, and what the module throws when a host is booted: it may
   *   be called again then
   */
  start(): Promise<void> {
    return this.engineSwitch.start();
  }

  /**
   * Adds a job to the queue. The engine starts it by priority (lower first), then age.
   * Upstream: `enqueue_job`; the context is validated here too, not only when it runs.
   * @returns the entry; of another job, and `deduplicated`, where that one holds the key that the options name
   * @throws InvalidJobContextError with the violations, DuplicateJobError, JobTemplateNotFoundError,
   *   JobTemplateInactiveError, BildadConfigError for a wrong option; nothing is enqueued then
   */
  async enqueueJob<J extends Job>(
    job: J,
    context: JobContext<J>,
    options: EnqueueOptions = {},
  ): Promise<JobQueueEntry> {
    return this.bildad.enqueue.one(referenceTo(job), context, options);
  }

  /**
   * Adds many jobs of one kind, all or none, in the order of their contexts. What is no array is read as it is inserted,
   * some 2,000 contexts at a time, in a transaction that is open as long as that takes; entries are then told by name only.
   * @throws as `enqueueJob`; the paths of violations begin with the context's index
   */
  enqueueJobs<J extends Job>(
    job: J,
    contexts: readonly JobContext<J>[],
    options?: BulkOptions,
  ): Promise<JobQueueEntry[]>;
  enqueueJobs<J extends Job>(
    job: J,
    contexts: Iterable<JobContext<J>> | AsyncIterable<JobContext<J>>,
    options?: BulkOptions,
  ): Promise<EntryReference[]>;
  async enqueueJobs(
    job: Job,
    contexts: ContextSource,
    options: BulkOptions = {},
  ): Promise<EntryReference[]> {
    refuseKeys(options);
    const { enqueue } = this.bildad;
    return Array.isArray(contexts)
      ? enqueue.many.add(referenceTo(job), contexts, options, (entry) => entry)
      : enqueue.many.add(referenceTo(job), contexts, options, nameOf);
  }

  /**
   * Adds a job and runs the engine now; jobs of higher priority ahead of it go first.
   * Upstream: `enqueue_job_and_trigger_engine`, preferred over `enqueueAndRunJob`. If a pass is under
   * way it is told to look again, and `jobEngineResults.alreadyRunning` is true.
   */
  async enqueueJobAndTriggerEngine<J extends Job>(
    job: J,
    context: JobContext<J>,
    options: WithoutManager = {},
  ): Promise<{
    jobQueueEntry: JobQueueEntry;
    jobEngineResults: JobEngineResults;
  }> {
    this.refuseTransaction(options);
    const jobQueueEntry = await this.enqueueToStart(job, context, options);
    return { jobQueueEntry, jobEngineResults: await this.runJobEngine() };
  }

  /**
   * Adds a job and runs it at once on this node, bypassing priority and free slots: use it sparingly.
   * Upstream: `enqueue_and_run_job`.
   * @returns its run, launched
   * @throws JobHandlerNotFoundError when this node cannot run it, JobNotAvailableError when its engine has not started
   *   yet: nothing is enqueued then; and as `enqueueJob`
   */
  async enqueueAndRunJob<J extends Job>(
    job: J,
    context: JobContext<J>,
    options: WithoutManager = {},
  ): Promise<JobRun> {
    this.refuseTransaction(options);
    refuseLater(options);
    const { claims } = this.bildad;
    const { code } = referenceTo(job);
    claims.checkHandler(code);
    claims.checkStarted(options?.jobRunIdentifier ?? code);
    const entry = await this.enqueueToStart(job, context, options);
    try {
      return await this.runJob(entry);
    } catch (error) {
      if (!(error instanceof JobNotAvailableError)) throw error;
      // A pass of the engine was faster: the job runs, which is all that was asked for.
      await this.bildad.deferred.writeOf(entry.id);
      const run = await this.lastRun(entry.jobRunIdentifier);
      if (run) return run;
      throw error;
    }
  }

  /**
   * One pass of the engine: expires what is expired, then starts what is available, up to the free
   * slots. One bad job never stops the others. Upstream: `run_job_engine`; one node at a time, held
   * by a lease. Not to be called inside a transaction.
   */
  runJobEngine(): Promise<JobEngineResults> {
    return outside(() => this.bildad.cycle.run());
  }

  /** How many jobs of a pass went well. Upstream: `get_counts`. */
  getCounts(outcomes: readonly JobOutcome[]): {
    okCount: number;
    errorCount: number;
  } {
    return countOutcomes(outcomes);
  }

  /**
   * Claims this entry, creates its run and launches it; resolves when launched. Of ten concurrent
   * callers one runs it. Upstream: `run_a_job`. A `runAt` that lies ahead is not waited for.
   * @throws JobNotAvailableError when it is running or gone, JobHandlerNotFoundError when this node
   *   has no handler for it, JobTemplateInactiveError, InvalidJobContextError: then it left the queue
   *   with one FAILED run
   */
  async runJob(entry: Pick<JobQueueEntry, 'id' | 'jobRunIdentifier'>): Promise<JobRun> {
    const { slots, claims } = this.bildad;
    return slots.launch(claims.entry({ ...entry, id: idOf(entry, 'queue entry') }));
  }

  /**
   * Starts a claimed run of this node that has no process yet, registered by name before its handler
   * starts. Upstream: `launch_job_process`. A run whose process is here already is left as it is.
   * @throws RunNotActiveError when it is not RUNNING, JobNotAvailableError when it lives on another node
   */
  async launchJobProcess(run: Pick<JobRun, 'id'>): Promise<JobRun> {
    const { slots, claims } = this.bildad;
    const id = idOf(run, 'run');
    return this.findJobProcess(run) ? this.runningRun(id) : slots.launch(claims.run(id));
  }

  /**
   * Ends a run as SUCCEEDED, with an optional output; its entry leaves the queue.
   * Upstream: `complete_a_job`. @throws RunNotActiveError when it is not RUNNING: nothing is changed
   */
  async completeJob(run: Pick<JobRun, 'id'>, output?: unknown): Promise<JobRun> {
    return this.bildad.interventions.end(idOf(run, 'run'), {
      kind: 'completed',
      output,
    });
  }

  /**
   * Ends a run as FAILED with the error's text as reason; its entry is tried again or leaves the queue.
   * Upstream: `fail_a_job`. @throws RunNotActiveError when it is not RUNNING: nothing is changed
   */
  async failJob(run: Pick<JobRun, 'id'>, error: unknown): Promise<JobRun> {
    return this.bildad.interventions.end(idOf(run, 'run'), {
      kind: 'failed',
      error,
    });
  }

  /**
   * Ends a run that is on no node any more as FAILED "Expired"; its entry is tried again or leaves the
   * queue. The engine does this by itself when a lease is over. Upstream: `expire_a_job`.
   * @throws RunNotActiveError when it is not RUNNING: nothing is changed
   */
  async expireJob(run: Pick<JobRun, 'id'>): Promise<JobRun> {
    return this.bildad.interventions.end(idOf(run, 'run'), { kind: 'expired' });
  }

  /**
   * If the run is on this node: stops its process and ends it as FAILED, "Timeout" when it is past its
   * timeout and else "Killed"; its entry is tried again or leaves the queue. If not: leaves word for
   * the owning node and returns null. Upstream: `kill_a_job`.
   * @throws RunNotActiveError when it is not RUNNING: nothing is changed
   */
  async killJob(run: Pick<JobRun, 'id'>): Promise<JobRun | null> {
    return this.bildad.interventions.kill(idOf(run, 'run'));
  }

  /**
   * Takes a running job back: its run is FAILED "Stopped", its entry AVAILABLE. In the database only:
   * the process goes on, but cannot change the run any more. Upstream: `stop_job_in_queue`.
   * @returns the run, or null when the entry is not running
   * @throws RunNotActiveError when the run ended meanwhile
   */
  async stopJobInQueue(entry: Pick<JobQueueEntry, 'id'>): Promise<JobRun | null> {
    return this.bildad.interventions.takeBack(idOf(entry, 'queue entry'));
  }

  /**
   * Deletes an entry. A run of it that is under way goes on, and ends in the history.
   * Upstream: `remove_job_from_queue`.
   */
  async removeJobFromQueue(entry: Pick<JobQueueEntry, 'id'>): Promise<void> {
    await this.bildad.interventions.remove(idOf(entry, 'queue entry'));
  }

  /** The retry number of the entry's next run: its current run's + 1, or 0 when none has run. Upstream: `get_retry_count`. */
  async getRetryCount(entry: Pick<JobQueueEntry, 'id'>): Promise<number> {
    const { db, tables } = this.bildad.store;
    return (await findEntry(db, tables, { id: idOf(entry, 'queue entry') }))?.retry ?? 0;
  }

  /**
   * Checks a context against a JSON Schema, or a class with class-validator decorators.
   * Upstream: `validate_job_context`.
   * @throws InvalidJobContextError with the violations, InvalidJobSchemaError when the schema is unusable
   */
  async validateJobContext(schema: JsonSchema | ContextClass, context: unknown): Promise<void> {
    // Undefined would stand for "any context".
    const contract = contextContract(schema ?? null);
    await encodeContext(contract, context, this.bildad.settings.maxContextBytes);
  }

  /** The process of a run on this node, or null. Upstream: `find_elixir_process`. */
  findJobProcess(run: Pick<JobRun, 'id'>): JobProcess | null {
    return this.bildad.processes.find(idOf(run, 'run'));
  }

  /**
   * Aborts the process's signal and waits for the grace period. Upstream: `try_to_kill_process`.
   * @returns whether the handler has ended; if not, its run is closed and it goes on
   */
  tryToKillProcess(process: JobProcess): Promise<boolean> {
    return this.bildad.killer.stop(process, { kind: 'killed' });
  }

  /**
   * Ends a job for good: a waiting entry is deleted (null), a running one is stopped as by `killJob`
   * and not tried again. On another node that happens when it sees the request.
   * @throws RunNotActiveError when it ended meanwhile
   */
  async cancelJob(entry: Pick<JobQueueEntry, 'id'>): Promise<JobRun | null> {
    return this.bildad.interventions.cancel(idOf(entry, 'queue entry'));
  }

  /** For who starts it himself: this node is not woken for it. */
  private enqueueToStart<J extends Job>(
    job: J,
    context: JobContext<J>,
    options: WithoutManager,
  ): Promise<JobQueueEntry> {
    return this.bildad.enqueue.one(referenceTo(job), context, options, {
      wakeHere: false,
    });
  }

  private lastRun(identifier: string): Promise<JobRun | null> {
    const { db, tables } = this.bildad.store;
    return findLastRun(db, tables, identifier);
  }

  private async runningRun(id: string): Promise<JobRun> {
    const { db, tables } = this.bildad.store;
    const [run] = await findRuns(db, tables, [id]);
    if (run?.status !== 'RUNNING') throw new RunNotActiveError(id);
    return run;
  }
}

const nameOf = ({ id, jobRunIdentifier }: EntryReference): EntryReference => ({
  id,
  jobRunIdentifier,
});
