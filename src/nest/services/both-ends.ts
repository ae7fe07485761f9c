import type { EntityManager } from 'typeorm';
import type { Duration } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import type { JobHandler, JobHandlerClass, ResultOf } from '../../job/job-handler.js';
import { jobRunIdentifier as readIdentifier } from '../../options/job-options.js';
import { duration, group, withDefault, type SchemaOf } from '../../options/reader.js';
import type { Stored } from '../../job/stored.js';
import { within } from '../../database/transactions/current-transaction.js';
import type { JobRun } from '../../database/entities/index.js';
import { referenceTo } from '../handlers/declaration.js';
import type { BildadRuntime } from '../module/runtime.js';

export interface WaitOptions {
  /** Default `'1m'`. */
  timeout?: Duration;
}

const readWaitOptions = group({
  timeout: withDefault(duration(), '1m'),
} satisfies SchemaOf<WaitOptions>);

/** A run as it ended; `output` is what the handler returned, as JSON has it: null where it failed or returned nothing. */
export type FinalRun<H> = Omit<JobRun, 'output'> & {
  output: Stored<ResultOf<H>> | null;
};

/** The part of `JobEngineService` about jobs and their callers: one transaction at the one end, the result at the other. */
export abstract class BothEnds {
  protected abstract readonly bildad: BildadRuntime;

  /**
   * Runs `work` in a transaction of the engine's DataSource. What is enqueued in it without `manager`, however deep in
   * its calls, is part of it; the wake-ups come when it is committed. Called inside of another one it is a savepoint of that.
   * @returns what `work` returns, committed
   * @throws what `work` throws: nothing of it has happened then. What is still enqueued in it when it is over throws
   *   TransactionOverError
   */
  async transaction<T>(work: (manager: EntityManager) => Promise<T>): Promise<T> {
    const { store, current } = this.bildad;
    if (typeof work !== 'function')
      throw new BildadConfigError('work', 'must be a function', {
        got: work,
        where: 'transaction()',
      });
    const around = current.manager ?? store.dataSource;
    return around.transaction((manager) => within(store, manager, () => work(manager)));
  }

  /**
   * The final run of a job, whatever node runs it, FAILED or not. Named with its handler, `output` is typed by what that
   * returns. Other nodes tell of the end (with the module's `notify`), and it is looked for once a second at the latest.
   * @param timeout default `'1m'`
   * @throws JobNotFoundError, WaitTimeoutError: the job itself goes on; JobEncryptionKeyError where its result is
   *   encrypted, and this process has not got the key; BildadConfigError
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
    // An identifier by itself: which handler was named is for the compiler.
    if (typeof first !== 'string') referenceTo(first);
    const { timeout } = readWaitOptions(options, '', 'waitForJob');
    const identifier = readIdentifier(jobRunIdentifier, 'jobRunIdentifier', 'waitForJob');
    const run = await this.bildad.waits.forRun(identifier, timeout);
    run.output = this.bildad.contexts.openResult(run.output, identifier);
    return run;
  }

  /** @throws BildadConfigError where a job would have to run before its transaction is committed */
  protected refuseTransaction(options: object): void {
    const given = options as { manager?: unknown } | undefined;
    const manager = given?.manager === undefined ? this.bildad.current.manager : given.manager;
    if (manager)
      throw new BildadConfigError(
        'manager',
        'is not supported here, nor is a call inside of a transaction: a job can run only after the commit; use enqueueJob instead',
      );
  }
}
