import { setMaxListeners } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import {
  InvalidJobContextError,
  JobHandlerNotFoundError,
  JobNotAvailableError,
} from '../model/errors.js';
import type { EntryFate, JobEvents } from '../model/events.js';
import type { ClaimedRun } from '../model/facts.js';
import type { ExecutionLogger } from '../model/job-execution.js';
import type { Outcome } from '../model/outcome.js';
import { narrowed, type ContextContract } from '../policy/context.js';
import type {
  HandlerRegistry,
  RegisteredHandler,
} from '../runner/handler-registry.js';
import { JobProcess } from '../runner/job-process.js';
import { Once } from '../runner/once.js';
import type { ProcessRegistry } from '../runner/process-registry.js';
import { Execution, identityOf } from './execution.js';
import type { FinishDoor } from './finish.js';

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

/** Told that the handler runs, or why it does not, or that its process is over: the first time counts. */
type Launched = (refused?: Error) => void;

/** What becomes of the entry of a run, null when somebody else ended the run. */
type End = Once<EntryFate | null>;

/** Claimed runs become processes here, and each process's outcome goes to the finish. */
export class RunJobs {
  /** By run: processes that hold a slot, and those whose end is not in the database yet. */
  private readonly lives = new Map<string, { run: ClaimedRun; end: End }>();
  private readonly unrecorded = new Set<End>();
  private readonly giveUp = new AbortController();

  constructor(
    private readonly handlers: HandlerRegistry<ContextContract>,
    private readonly processes: ProcessRegistry,
    private readonly door: FinishDoor,
    private readonly events: JobEvents,
    private readonly loggerFor: (run: ClaimedRun) => ExecutionLogger,
  ) {
    // One for each outcome that waits for the database to come back.
    setMaxListeners(0, this.giveUp.signal);
  }

  /**
   * Resolves when the handler has been started.
   * @throws InvalidJobContextError, InvalidJobSchemaError, JobHandlerNotFoundError, JobNotAvailableError
   */
  launch(run: ClaimedRun): Promise<void> {
    return new Promise((resolve, reject) => {
      let told = false;
      const begun = this.begin(run, (refused) => {
        if (told) return;
        told = true;
        if (!refused) return resolve();
        const life = this.lives.get(run.jobRunId);
        if (life) life.end.whenever(() => reject(refused));
        else reject(refused);
      });
      if (!begun)
        reject(
          new JobNotAvailableError(
            run.jobRunIdentifier,
            'its process runs already',
          ),
        );
    });
  }

  /**
   * The run's process holds a slot from here on. A context that is invalid by now ends the run without its
   * handler, whatever `maxRetries` is: it would fail every time. The check is part of the process, so that
   * timeout, kill and heartbeat cover a validator that hangs.
   * @returns false when the run has a process already, which goes on
   */
  begin(run: ClaimedRun, launched: Launched = () => undefined): boolean {
    const handler = this.handlers.get(run.templateCode);
    if (!handler) {
      void this.giveBack(run, launched);
      return true;
    }
    const process = new JobProcess(run);
    if (this.lives.has(run.jobRunId) || !this.processes.add(process))
      return false;
    // Before it starts and anybody hears of it: a listener may kill it at once.
    this.follow(process);
    process.decided.whenever(() => launched());
    process.start(() => this.work(process, handler, launched));
    return true;
  }

  private async work(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched: Launched,
  ): Promise<Outcome> {
    const { operatorSchema, templateCode, jobContext } = process.run;
    let context: unknown;
    try {
      const contract = narrowed(handler.contract, operatorSchema, templateCode);
      context = contract.decode(jobContext);
      if (context instanceof Promise) context = await context;
    } catch (error) {
      launched(error as Error);
      return error instanceof InvalidJobContextError
        ? { kind: 'invalidContext', error }
        : { kind: 'failed', error };
    }
    process.throwIfStopping();
    let instance = handler.resolve();
    if (instance instanceof Promise) instance = await instance;
    this.events.emit('run.started', identityOf(process.run));
    launched();
    const returned: unknown = instance.runJob(
      context,
      new Execution(process, this.events, this.loggerFor),
    );
    const output = isThenable(returned) ? await returned : returned;
    return { kind: 'completed', output };
  }

  private async giveBack(run: ClaimedRun, launched: Launched): Promise<void> {
    try {
      await this.door.finish(run, { kind: 'interrupted' });
    } catch (error) {
      return launched(error as Error);
    }
    launched(new JobHandlerNotFoundError(run.templateCode));
  }

  /** What becomes of the entry of a run on this node, null when somebody else ended the run; undefined when it is not here. */
  endOf(jobRunId: string): Promise<EntryFate | null> | undefined {
    return this.lives.get(jobRunId)?.end.promise;
  }

  /** The runs this node answers for. */
  held(): ClaimedRun[] {
    return Array.from(this.lives.values(), ({ run }) => run);
  }

  /** Outcomes that wait to be recorded. */
  get backlog(): number {
    return this.unrecorded.size;
  }

  /** Resolves when every outcome known so far has been recorded, or given up. */
  async recorded(): Promise<void> {
    await Promise.all([...this.unrecorded].map((end) => end.promise));
  }

  /** Stops trying to record outcomes: the leases will do the rest. */
  stopRecording(): void {
    this.giveUp.abort();
  }

  /** The slot is free as soon as the handler has ended; its outcome is recorded meanwhile. */
  private follow(process: JobProcess): void {
    const end: End = new Once();
    this.lives.set(process.jobRunId, { run: process.run, end });
    process.decided.whenever((outcome) => {
      this.unrecorded.add(end);
      void this.record(process, outcome).then((fate) => {
        this.unrecorded.delete(end);
        if (process.isSettled) this.lives.delete(process.jobRunId);
        end.happen(fate);
      });
      if (process.isSettled) this.processes.remove(process);
      else void this.outlive(process, outcome, end);
    });
  }

  /** An abandoned handler keeps its slot until it ends, so that a node is not overrun by what it cannot stop. */
  private async outlive(
    process: JobProcess,
    { kind }: Outcome,
    end: End,
  ): Promise<void> {
    await end.promise;
    this.events.emit('process.abandoned', {
      ...identityOf(process.run),
      outcome: kind,
    });
    await process.settled;
    this.lives.delete(process.jobRunId);
    this.events.emit('process.ended', identityOf(process.run));
    this.processes.remove(process);
  }

  /** An outcome is decided once; while the database is away it waits. */
  private record(
    process: JobProcess,
    outcome: Outcome,
  ): Promise<EntryFate | null> {
    if (process.fenced) {
      // The run is somebody else's, who may carry it out under the same number.
      this.door.lose(process.run, outcome);
      return Promise.resolve(null);
    }
    return this.door
      .finish(process.run, outcome)
      .catch((error: unknown) => this.recordLater(process, outcome, error));
  }

  private async recordLater(
    process: JobProcess,
    outcome: Outcome,
    firstError: unknown,
  ): Promise<EntryFate | null> {
    let error = firstError;
    for (let attempt = 0; ; attempt++) {
      this.events.emit('engine.error', {
        doing: `recording the end of run ${process.jobRunId}`,
        error,
      });
      if (!(await this.patience(attempt))) return null;
      try {
        return await this.door.finish(process.run, outcome);
      } catch (again) {
        error = again;
      }
    }
  }

  private async patience(attempt: number): Promise<boolean> {
    const longest = Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS);
    try {
      await pause(longest * (0.5 + Math.random() / 2), undefined, {
        signal: this.giveUp.signal,
      });
      return true;
    } catch {
      return false;
    }
  }
}

/** Asked by ourselves: to `await` a value whose `then` throws would fail a handler that has succeeded. */
function isThenable(value: unknown): boolean {
  try {
    return typeof (value as PromiseLike<unknown> | null)?.then === 'function';
  } catch {
    return false;
  }
}
