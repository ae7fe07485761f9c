import { Inject, Injectable } from '@nestjs/common';
import { dueTime, entryChanges, type JobChanges } from '../../control/change-jobs.js';
import type { EntityManager } from 'typeorm';
import { measure } from '../../features/telemetry/index.js';
import type { Duration } from '../../job/duration.js';
import type { MetricSink } from '../../job/metrics.js';
import type { Stored, JsonSchema } from '../../job/json.js';
import { jobRunIdentifier as readIdentifier } from '../../options/job-options.js';
import { duration, group, withDefault, type SchemaOf } from '../../options/reader.js';
import type { BildadHealth, BildadLiveness } from '../health/health.js';
import type { JobEngineResults } from '../../node/pass.js';
import type { JobOutcome } from '../../node/slots.js';
import type { EntryReference } from '../../lifecycle/enqueue/enqueue.sql.js';
import type { ContextSource } from '../../lifecycle/enqueue/enqueue-bulk.js';
import {
  refuseDelay,
  refuseKeys,
  type BulkOptions,
  type EnqueueOptions,
} from '../../lifecycle/enqueue/enqueue-options.js';
import { BildadConfigError, JobNotAvailableError, RunNotActiveError } from '../../job/errors.js';
import type { ContextOf, JobHandler, JobHandlerClass, ResultOf } from '../../job/job-handler.js';
import {
  contextContract,
  encodeContext,
  type ContextClass,
} from '../../context/context-contract.js';
import { countOutcomes } from '../../node/slots.js';
import { JobProcess } from '../../lifecycle/run/job-process.js';
import {
  runOutsideTransaction,
  runInTransaction,
} from '../../database/transactions/current-transaction.js';
import type { JobQueueEntry, JobRun, JobTemplate } from '../../database/entities/index.js';
import { findEntry, findLastRun, findRuns } from '../../lifecycle/run/run.sql.js';
import {
  readFailedFilter,
  readJobFilter,
  type FailedJobFilter,
  type JobFilter,
} from './job-filter.js';
import { EngineStarter } from '../module/engine-starter.js';
import { idOf } from './arguments.js';
import { referenceTo } from '../handlers/declaration.js';
import { BILDAD_RUNTIME, type BildadRuntime } from '../module/runtime.js';

/** A job: its handler class (the context is then typed), its template's code, or its template. */
export type Job = JobHandlerClass | string | JobTemplate;

/** The context a job takes: the handler's own type, else any object. */
export type JobContext<J> = J extends JobHandlerClass<infer H> ? ContextOf<H> : object;

export interface WaitOptions {
  /** Default `'1m'`. */
  timeout?: Duration;
}

/**
 * An ended run. `output` is the handler's result as JSON; null when it failed or returned nothing.
 */
export type FinalRun<H> = Omit<JobRun, 'output'> & {
  output: Stored<ResultOf<H>> | null;
};

const readWaitOptions = group({
  timeout: withDefault(duration(), '1m'),
} satisfies SchemaOf<WaitOptions>);

type WithoutManager = Omit<EnqueueOptions, 'manager'>;

/**
 * The verbs of a job's life; each names the function of Elixir's `Bildad.Job.JobEngine` it ports.
 * Runs and entries may be given as entities or as anything with their `id`.
 */
@Injectable()
export class JobEngineService {
  constructor(
    @Inject(BILDAD_RUNTIME) private readonly bildad: BildadRuntime,
    private readonly engineStarter: EngineStarter,
  ) {}

  /**
   * Starts this node's engine, for modules with `autoStart: false`. It has no effect when the
   * engine runs already; a producer never runs jobs. Resolves when the hosts of isolated jobs are
   * ready.
   * @throws BildadConfigError before the app is initialized; the error of the app's module when a
   *   host cannot boot. It may be called again after an error
   */
  start(): Promise<void> {
    return this.engineStarter.start();
  }

  /**
   * Adds a job to the queue. The engine starts jobs by priority (lower first), then age.
   * Upstream: `enqueue_job`; the context is validated here too, not only when it runs.
   * @returns the entry. When another job holds the unique key of the options: that job's entry,
   *   with `deduplicated`
   * @throws InvalidJobContextError with the violations, DuplicateJobError,
   *   JobTemplateNotFoundError, JobTemplateInactiveError, BildadConfigError for a wrong option;
   *   nothing is enqueued then
   */
  async enqueueJob<J extends Job>(
    job: J,
    context: JobContext<J>,
    options: EnqueueOptions = {},
  ): Promise<JobQueueEntry> {
    return this.bildad.enqueue.enqueueJob(referenceTo(job), context, options);
  }

  /**
   * Adds many jobs of one template, all or none, in the order of their contexts. An iterable is
   * read while it is inserted, some 2,000 contexts at a time, in one transaction that stays open
   * meanwhile; it returns only ids and identifiers.
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
      ? enqueue.enqueueJobs(referenceTo(job), contexts, options, (entry) => entry)
      : enqueue.enqueueJobs(referenceTo(job), contexts, options, nameOf);
  }

  /**
   * Adds a job and runs the engine now; jobs of higher priority ahead of it go first.
   * Upstream: `enqueue_job_and_trigger_engine`, preferred over `enqueueAndRunJob`. If a pass is
   * running, the engine runs another one after it, and `jobEngineResults.alreadyRunning` is true.
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
   * Adds a job and runs it at once on this node, bypassing priority and free slots: use it
   * sparingly. Upstream: `enqueue_and_run_job`.
   * @returns its run, launched
   * @throws JobHandlerNotFoundError when this node cannot run it, JobNotAvailableError when its
   *   engine has not started yet: nothing is enqueued then; and as `enqueueJob`
   */
  async enqueueAndRunJob<J extends Job>(
    job: J,
    context: JobContext<J>,
    options: WithoutManager = {},
  ): Promise<JobRun> {
    this.refuseTransaction(options);
    refuseDelay(options);
    const { claims } = this.bildad;
    const { code } = referenceTo(job);
    claims.checkHandler(code);
    claims.checkStarted(options?.jobRunIdentifier ?? code);
    const entry = await this.enqueueToStart(job, context, options);
    try {
      return await this.runJob(entry);
    } catch (error) {
      if (!(error instanceof JobNotAvailableError)) throw error;
      // A pass of the engine claimed it first: the job runs, as requested.
      await this.bildad.lateRows.ensureWrittenOfEntry(entry.id);
      const run = await this.lastRun(entry.jobRunIdentifier);
      if (run) return run;
      throw error;
    }
  }

  /**
   * Runs one pass of the engine: ends expired runs, then starts available jobs up to the free
   * slots. One bad job never stops the others. Upstream: `run_job_engine`. A lease lets one node at
   * a time run a pass. Must not be called inside a transaction.
   */
  runJobEngine(): Promise<JobEngineResults> {
    return runOutsideTransaction(() => this.bildad.pass.run());
  }

  /** Counts the successful and the failed outcomes of a pass. Upstream: `get_counts`. */
  getCounts(outcomes: readonly JobOutcome[]): {
    okCount: number;
    errorCount: number;
  } {
    return countOutcomes(outcomes);
  }

  /**
   * Claims this entry, creates its run and launches it; resolves when launched. Exactly one of
   * several concurrent callers runs it. Ignores a `runAt` in the future. Upstream: `run_a_job`.
   * @throws JobNotAvailableError when it is running or gone, JobHandlerNotFoundError when this node
   *   has no handler for it, JobTemplateInactiveError; InvalidJobContextError after it left the
   *   queue with one FAILED run
   */
  async runJob(entry: Pick<JobQueueEntry, 'id' | 'jobRunIdentifier'>): Promise<JobRun> {
    const { slots, claims } = this.bildad;
    return slots.launchClaim(claims.claimEntry({ ...entry, id: idOf(entry, 'queue entry') }));
  }

  /**
   * Starts a claimed run of this node that has no process yet. The process is registered before its
   * handler starts. A run that has a process here is not changed. Upstream: `launch_job_process`.
   * @throws RunNotActiveError when it is not RUNNING, JobNotAvailableError when another node runs
   *   it
   */
  async launchJobProcess(run: Pick<JobRun, 'id'>): Promise<JobRun> {
    const { slots, claims } = this.bildad;
    const id = idOf(run, 'run');
    return this.findJobProcess(run) ? this.runningRun(id) : slots.launchClaim(claims.claimRun(id));
  }

  /**
   * Ends a run as SUCCEEDED, with an optional output; its entry leaves the queue.
   * Upstream: `complete_a_job`.
   * @throws RunNotActiveError when it is not RUNNING; nothing changes
   */
  async completeJob(run: Pick<JobRun, 'id'>, output?: unknown): Promise<JobRun> {
    return this.bildad.runControl.endRun(idOf(run, 'run'), {
      kind: 'completed',
      output,
    });
  }

  /**
   * Ends a run as FAILED with the error's text as reason; its job is retried or leaves the queue.
   * Upstream: `fail_a_job`.
   * @throws RunNotActiveError when it is not RUNNING; nothing changes
   */
  async failJob(run: Pick<JobRun, 'id'>, error: unknown): Promise<JobRun> {
    return this.bildad.runControl.endRun(idOf(run, 'run'), {
      kind: 'failed',
      error,
    });
  }

  /**
   * Ends a run that no node owns any more as FAILED "Expired"; its job is retried or leaves the
   * queue. The engine does this when a lease expires. Upstream: `expire_a_job`.
   * @throws RunNotActiveError when it is not RUNNING; nothing changes
   */
  async expireJob(run: Pick<JobRun, 'id'>): Promise<JobRun> {
    return this.bildad.runControl.endRun(idOf(run, 'run'), { kind: 'expired' });
  }

  /**
   * Stops the process of a run on this node and ends the run as FAILED: "Timeout" when it is past
   * its timeout, else "Killed". Its job is retried or leaves the queue. For a run on another node
   * it stores the request and returns null; that node stops the run at its next heartbeat.
   * Upstream: `kill_a_job`.
   * @throws RunNotActiveError when it is not RUNNING; nothing changes
   */
  async killJob(run: Pick<JobRun, 'id'>): Promise<JobRun | null> {
    return this.bildad.runControl.killRun(idOf(run, 'run'));
  }

  /**
   * Returns a running job to the queue: its run is FAILED "Stopped", its entry AVAILABLE. This
   * changes the database only: the process continues, but cannot change the run any more. Upstream:
   * `stop_job_in_queue`.
   * @returns the run, or null when the entry is not running
   * @throws RunNotActiveError when the run ended meanwhile
   */
  async stopJobInQueue(entry: Pick<JobQueueEntry, 'id'>): Promise<JobRun | null> {
    return this.bildad.runControl.stopEntry(idOf(entry, 'queue entry'));
  }

  /**
   * Deletes an entry. Its current run, if any, continues and ends in the history.
   * Upstream: `remove_job_from_queue`.
   */
  async removeJobFromQueue(entry: Pick<JobQueueEntry, 'id'>): Promise<void> {
    await this.bildad.runControl.removeEntry(idOf(entry, 'queue entry'));
  }

  /**
   * The retry number of the entry's next run: its current run's + 1, or 0 when none has run.
   * Upstream: `get_retry_count`.
   */
  async getRetryCount(entry: Pick<JobQueueEntry, 'id'>): Promise<number> {
    const { db, tables } = this.bildad.store;
    return (await findEntry(db, tables, { id: idOf(entry, 'queue entry') }))?.retry ?? 0;
  }

  /**
   * Checks a context against a JSON Schema, or a class with class-validator decorators.
   * Upstream: `validate_job_context`.
   * @throws InvalidJobContextError with the violations, InvalidJobSchemaError when the schema is
   *   unusable
   */
  async validateJobContext(schema: JsonSchema | ContextClass, context: unknown): Promise<void> {
    // Undefined would mean "any context".
    const contract = contextContract(schema ?? null);
    await encodeContext(contract, context, this.bildad.settings.maxContextBytes);
  }

  /** The process of a run on this node, or null. Upstream: `find_elixir_process`. */
  findJobProcess(run: Pick<JobRun, 'id'>): JobProcess | null {
    return this.bildad.processes.find(idOf(run, 'run'));
  }

  /**
   * Aborts the process's signal and waits for the grace period. Upstream: `try_to_kill_process`.
   * @returns whether the handler ended. If not, its run is ended all the same, and the handler
   *   continues
   */
  tryToKillProcess(process: JobProcess): Promise<boolean> {
    return this.bildad.killer.stopProcess(process, { kind: 'killed' });
  }

  /**
   * Ends a job without a retry: a waiting entry is deleted (returns null), a running one is stopped
   * as by `killJob`. A run on another node stops when that node reads the request.
   * @throws RunNotActiveError when the run ended meanwhile
   */
  async cancelJob(entry: Pick<JobQueueEntry, 'id'>): Promise<JobRun | null> {
    return this.bildad.runControl.cancelEntry(idOf(entry, 'queue entry'));
  }

  /**
   * Changes the time at which a waiting job is due.
   * @param when a Date, or a duration from now; 0 is now
   * @throws JobNotAvailableError when it is not AVAILABLE, BildadConfigError; nothing changes
   */
  async rescheduleJob(
    entry: Pick<JobQueueEntry, 'id'>,
    when: Date | Duration,
  ): Promise<JobQueueEntry> {
    const due = dueTime(when, 'when');
    return this.bildad.changes.changeEntry(idOf(entry, 'queue entry'), { due });
  }

  /**
   * Changes a waiting job; omitted fields stay. The context is validated as by `enqueueJob`.
   * @throws JobNotAvailableError when it is not AVAILABLE, InvalidJobContextError, BildadConfigError; nothing changes
   */
  async updateJob(
    entry: Pick<JobQueueEntry, 'id'>,
    { context, ...options }: JobChanges,
  ): Promise<JobQueueEntry> {
    return this.bildad.changes.changeEntry(
      idOf(entry, 'queue entry'),
      entryChanges(options),
      context,
    );
  }

  /**
   * Enqueues the job of a run again as a new job, with the same context or another one. The history
   * does not change, and the new entry's `retryOfJobRunId` names the run. The new job keeps the
   * carried data (module option `carry`) of the first one.
   * @throws as `enqueueJob`; JobEncryptionKeyError when its context is encrypted and this process
   *   lacks the key
   */
  async retryJob(
    run: Pick<JobRun, 'id' | 'jobTemplateId' | 'jobContext'>,
    { context, ...options }: EnqueueOptions & { context?: object } = {},
  ): Promise<JobQueueEntry> {
    const { jobTemplateId, jobContext } = run;
    const retried = { id: idOf(run, 'run'), jobTemplateId, jobContext };
    return this.bildad.enqueue.retryRun(retried, context, options);
  }

  /**
   * Cancels all jobs in the queue that match, as by `cancelJob`, in batches. Jobs enqueued meanwhile
   * may be included.
   * @returns the number of deleted waiting jobs, and of running jobs that were asked to stop
   * @throws BildadConfigError
   */
  async cancelJobs(filter: JobFilter): Promise<{ removed: number; stopped: number }> {
    return this.bildad.bulkOperations.cancel(readJobFilter(filter));
  }

  /** Changes the due time of all AVAILABLE jobs that match, in batches. @throws BildadConfigError */
  async rescheduleJobs(filter: JobFilter, when: Date | Duration): Promise<{ rescheduled: number }> {
    const due = dueTime(when, 'when');
    const read = readJobFilter(filter);
    if (read.status !== undefined && read.status !== 'AVAILABLE') return { rescheduled: 0 };
    return { rescheduled: await this.bildad.bulkOperations.reschedule(read, due) };
  }

  /**
   * Retries all failed jobs that match, as by `retryJob`, in batches, except jobs whose retry is in
   * the queue.
   * @returns the number of retried jobs, and of refused ones: their context is invalid by now, or
   *   their template is inactive
   * @throws BildadConfigError
   */
  async retryJobs(filter: FailedJobFilter): Promise<{ retried: number; refused: number }> {
    return this.bildad.bulkOperations.retry(readFailedFilter(filter));
  }

  /**
   * Runs `work` in a transaction of the engine's DataSource. Every job enqueued inside it without
   * `manager`, at any call depth, is part of it; wake-ups follow the commit. Inside another such
   * transaction it is a savepoint.
   * @returns the result of `work`, committed
   * @throws the error of `work` after a rollback. An enqueue inside it after it ended throws
   *   TransactionOverError
   */
  async transaction<T>(work: (manager: EntityManager) => Promise<T>): Promise<T> {
    const { store, current } = this.bildad;
    if (typeof work !== 'function')
      throw new BildadConfigError('work', 'must be a function', {
        got: work,
        where: 'transaction()',
      });
    const parent = current.manager ?? store.dataSource;
    return parent.transaction((manager) => runInTransaction(store, manager, () => work(manager)));
  }

  /**
   * Waits for the final run of a job, FAILED or not, on whatever node it runs. Pass the handler
   * class to type `output`. The end arrives as a notification (module option `notify`); the
   * database is checked at least once a second.
   * @param timeout default `'1m'`
   * @throws JobNotFoundError; WaitTimeoutError while the job continues; JobEncryptionKeyError when
   *   the result is encrypted and this process lacks the key; BildadConfigError
   */
  waitForJob<H extends JobHandler = JobHandler>(
    jobRunIdentifier: string,
    options?: WaitOptions,
  ): Promise<FinalRun<H>>;
  waitForJob<C extends JobHandlerClass>(
    job: C,
    jobRunIdentifier: string,
    options?: WaitOptions,
  ): Promise<FinalRun<InstanceType<C>>>;
  async waitForJob(
    first: string | JobHandlerClass,
    ...rest: [unknown?, unknown?]
  ): Promise<unknown> {
    const [jobRunIdentifier, options = {}] = typeof first === 'string' ? [first, ...rest] : rest;
    // The handler class only serves the compiler.
    if (typeof first !== 'string') referenceTo(first);
    const { timeout } = readWaitOptions(options, '', 'waitForJob');
    const identifier = readIdentifier(jobRunIdentifier, 'jobRunIdentifier', 'waitForJob');
    const run = await this.bildad.waiter.waitForRun(identifier, timeout);
    run.output = this.bildad.contexts.openResult(run.output, identifier);
    return run;
  }

  /** The state of this process, without asking the database. Never throws. */
  liveness(): BildadLiveness {
    return this.bildad.health.liveness();
  }

  /**
   * The state of the engine for operators and readiness probes: facts without a verdict. An
   * unreachable database is one of these facts and does not reject. It costs one indexed statement,
   * and every ten seconds one that counts unrunnable jobs.
   * @param options.timeout how long the database may take to answer. Default `'2s'`
   * @throws BildadConfigError when `timeout` is not a duration
   */
  async health(options: { timeout?: Duration } = {}): Promise<BildadHealth> {
    return this.bildad.health.read(options);
  }

  /**
   * Sends all metrics of the engine (`BILDAD_METRICS`) to your own sink from now on, as `telemetry`
   * does for OpenTelemetry and `nestjs-bildad/prometheus` for a registry.
   * @returns stops it
   */
  measure(sink: MetricSink): () => void {
    return measure(this.bildad.measured, sink);
  }

  /** Enqueues without waking this node: the caller starts the job itself. */
  private enqueueToStart<J extends Job>(
    job: J,
    context: JobContext<J>,
    options: WithoutManager,
  ): Promise<JobQueueEntry> {
    return this.bildad.enqueue.enqueueJob(referenceTo(job), context, options, {
      wakeHere: false,
    });
  }

  /** @throws BildadConfigError inside a transaction: the job would have to run before the commit */
  private refuseTransaction(options: object): void {
    const given = options as { manager?: unknown } | undefined;
    const manager = given?.manager === undefined ? this.bildad.current.manager : given.manager;
    if (manager)
      throw new BildadConfigError(
        'manager',
        'is not supported here, nor is a call inside of a transaction: a job can run only after the commit; use enqueueJob instead',
      );
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
