import type { EntityManager } from 'typeorm';
import { waitForFinalRun } from '../engine/wait.js';
import { toMilliseconds, type Duration } from '../model/duration.js';
import { BildadConfigError } from '../model/errors.js';
import { within } from '../store/ambient.js';
import type { JobRun } from '../store/entities/index.js';
import { identifier } from './ids.js';
import type { BildadRuntime } from './runtime.js';

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
  async transaction<T>(
    work: (manager: EntityManager) => Promise<T>,
  ): Promise<T> {
    const { store, current } = this.bildad;
    if (typeof work !== 'function')
      throw new BildadConfigError('work', 'a function', work);
    const around = current.manager ?? store.dataSource;
    return around.transaction((manager) =>
      within(store, manager, () => work(manager)),
    );
  }

  /**
   * The final run of a job, whatever node runs it. @param timeout default `'1m'`
   * @throws JobNotFoundError, WaitTimeoutError: the job itself goes on
   */
  async waitForJob(
    jobRunIdentifier: string,
    { timeout = '1m' }: { timeout?: Duration } = {},
  ): Promise<JobRun> {
    const { store, events } = this.bildad;
    identifier(jobRunIdentifier);
    return waitForFinalRun(
      store,
      events,
      jobRunIdentifier,
      toMilliseconds(timeout, 'timeout'),
    );
  }

  /** @throws BildadConfigError where a job would have to run before its transaction is committed */
  protected refuseTransaction(options: object): void {
    const given = options as { manager?: unknown } | undefined;
    const manager =
      given?.manager === undefined
        ? this.bildad.current.manager
        : given.manager;
    if (manager)
      throw new BildadConfigError(
        'manager',
        'none: a job can run only when its transaction is committed; use enqueueJob',
        given?.manager ? 'an EntityManager' : 'a call inside of a transaction',
      );
  }
}
