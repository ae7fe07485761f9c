import { Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { ModuleRef, ModulesContainer } from '@nestjs/core';
import {
  BildadConfigError,
  performHandler,
  type ContextOf,
  type JobHandler,
  type JobHandlerClass,
  type Performed,
  type PerformOptions,
  type ResultOf,
} from 'nestjs-bildad';
import { TestClock } from './clock.js';
import { drainAll, readDrainOptions, runOne, type DrainOptions } from './drain.js';
import { enqueuedJobs, type EnqueuedJob } from './enqueued.js';
import { bySchema, TABLES_OF_JOBS, testEngines, type TestEngine } from './engines.js';
import { JobRunFailedError, TestLeakError } from './errors.js';
import { withKnown, type Known } from './matchers.js';
import { TestExtension } from './bildad-testing.module.js';
import { runInline, TransactionCalls } from './inline.js';
import { leaksOf, stopRunning } from './engines.js';
import type { FinishedRun } from './drain.js';

/** Controls the engines of the app under test: all of them, one after the other. */
@Injectable()
export class BildadTesting implements OnModuleInit, OnModuleDestroy {
  readonly clock = new TestClock(() => this.engines);
  private found: TestEngine[] | undefined;
  private readonly inTransactionCall = new TransactionCalls();
  private readonly letBe: (() => void)[] = [];
  private last: Promise<unknown> = Promise.resolve();
  private mark = 0;
  private closing = false;
  private draining = 0;
  /** A handler has enqueued a job. */
  private isOwed = false;

  constructor(
    private readonly extension: TestExtension,
    private readonly modules: ModulesContainer,
    private readonly moduleRef: ModuleRef,
  ) {}

  /**
   * Runs due jobs, and the jobs that they enqueue, one after the other, by priority and age.
   * @returns the runs in the order of their ends, including failed ones
   * @throws DrainLimitError, BildadConfigError
   */
  drain(options?: DrainOptions): Promise<FinishedRun[]> {
    return this.inTurn('drain', async () => {
      this.draining++;
      try {
        return await drainAll(this.engines, readDrainOptions(options), () => this.closing);
      } finally {
        this.draining--;
      }
    });
  }

  /** Runs the next due job. @returns null if there is none */
  runNext(): Promise<FinishedRun | null> {
    return this.inTurn('runNext', () => runOne(this.engines));
  }

  /** All enqueued jobs, ended ones first. `expect(testing).toHaveEnqueued(...)` checks them. */
  async enqueued(): Promise<EnqueuedJob[]> {
    const [known, ...jobs] = await Promise.all([
      this.known(),
      ...bySchema(this.engines).map(enqueuedJobs),
    ]);
    return withKnown(jobs.flat(), known);
  }

  /** Runs a handler of the app once, with its injected providers, as `performJob`. Nothing is enqueued or stored. */
  async perform<H extends JobHandler>(
    handler: JobHandlerClass<H>,
    context: ContextOf<H>,
    options?: PerformOptions,
  ): Promise<Performed<ResultOf<H>>> {
    const instance = await this.moduleRef.resolve(handler, undefined, {
      strict: false,
    });
    return performHandler(instance, context, options);
  }

  /**
   * Until `rollback`, all statements of the app and its engines on a DataSource run in one transaction, on one
   * connection. For the modes `manual` and `inline`.
   */
  async begin(): Promise<void> {
    if (this.extension.settings.mode === 'real')
      throw new BildadConfigError('mode', "must be 'manual' or 'inline'", {
        got: 'real',
        where: 'begin()',
      });
    if (this.pools.some(({ isShared }) => isShared))
      throw new BildadConfigError('begin()', 'was called twice: call rollback() first');
    await this.last;
    this.mark = this.clock.mark;
    for (const pools of this.pools) await pools.begin();
  }

  /**
   * Undoes all changes since `begin`. Has no effect without `begin`.
   * @throws TestLeakError when jobs still run: they are stopped, and the changes are undone
   */
  async rollback(): Promise<void> {
    const shared = this.pools.filter(({ isShared }) => isShared);
    if (shared.length === 0) return;
    const leaks = await stopRunning(this.engines).catch(() => []);
    let failure: Error | undefined;
    for (const pools of shared) await pools.rollback().catch((error: Error) => (failure ??= error));
    this.clock.reset(this.mark);
    if (leaks.length > 0) throw new TestLeakError(leaks);
    if (failure) throw failure;
  }

  /** Runs `work` between `begin` and `rollback`. @returns its result */
  async inTransaction<T>(work: () => T | Promise<T>): Promise<T> {
    await this.begin();
    let result: T;
    try {
      result = await work();
    } catch (error) {
      await this.rollback().catch(() => undefined);
      throw error;
    }
    await this.rollback();
    return result;
  }

  /** Removes all jobs, and their history. For tests without a transaction. */
  async clear(): Promise<void> {
    for (const { dataSource, schema } of this.engines)
      for (const table of TABLES_OF_JOBS)
        await dataSource.query(`DELETE FROM "${schema}"."${table}"`);
  }

  /** Describes runs and a transaction that the test should have ended. */
  async leaks(): Promise<string[]> {
    const open = this.pools.filter(({ isShared }) => isShared).length;
    return [
      ...(open > 0 ? [`${open} transaction${open > 1 ? 's' : ''} of begin()`] : []),
      ...(await leaksOf(this.engines)),
    ];
  }

  /** For an `afterEach`. @throws TestLeakError */
  async expectNoLeaks(): Promise<void> {
    const leaks = await this.leaks();
    if (leaks.length > 0) throw new TestLeakError(leaks);
  }

  /** @internal */
  onModuleInit(): void {
    const { mode } = this.extension.settings;
    if (mode !== 'inline') return;
    for (const engine of this.engines) {
      this.letBe.push(
        runInline(engine, () => this.settle(), this.inTransactionCall),
        engine.events.on('run.finished', () => this.settleLate()),
      );
    }
  }

  /** @internal */
  async onModuleDestroy(): Promise<void> {
    this.closing = true;
    for (const letBe of this.letBe.splice(0)) letBe();
    // The app could not close while it is open.
    if (this.found) await this.rollback().catch(() => undefined);
  }

  private async known(): Promise<Known> {
    const templates = await Promise.all(
      this.engines.map(({ dataSource, entities }) =>
        dataSource.getRepository(entities.JobTemplate).find(),
      ),
    );
    return {
      codes: new Set(templates.flat().map(({ code }) => code)),
      engines: this.engines.map(({ name }) => name),
    };
  }

  private get engines(): readonly TestEngine[] {
    return (this.found ??= testEngines(this.extension.engines, this.modules));
  }

  private get pools() {
    return [...new Set(this.engines.map(({ pools }) => pools))];
  }

  /** Jobs that a job enqueues run after it. */
  private async settle(): Promise<void> {
    if (this.extension.isInHandler) {
      this.isOwed = true;
      return;
    }
    const runs = await this.drain();
    if (!this.extension.settings.throwFailures) return;
    for (const { run, code, outcome } of runs)
      if (outcome !== 'completed' && outcome !== 'snoozed') throw new JobRunFailedError(run, code);
  }

  /** The enqueuing job was not started by a drain, so no caller waits for it. */
  private settleLate(): void {
    if (!this.isOwed || this.draining > 0 || this.closing) return;
    this.isOwed = false;
    this.extension.outside(() => this.drain()).catch(() => undefined);
  }

  private inTurn<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (this.extension.isInHandler)
      throw new BildadConfigError(
        `${name}()`,
        'must be called by the test, not by a handler: a job cannot wait for itself',
      );
    const result = this.last.then(() => work());
    this.last = result.catch(() => undefined);
    return result;
  }
}
