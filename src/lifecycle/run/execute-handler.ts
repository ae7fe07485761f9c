import { AsyncLocalStorage } from 'node:async_hooks';
import { envelopeOf, isSecret } from '../../context/envelope.js';
import { withOperatorSchema, type ContextContract } from '../../context/context-contract.js';
import { redactedError } from '../../context/redaction.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import {
  mayJoinTransaction,
  runOutsideTransaction,
} from '../../database/transactions/current-transaction.js';
import { InvalidJobContextError } from '../../job/errors.js';
import type { JobEvents } from '../../job/events.js';
import type { ExecutionLogger, JobExecution, JobHandler } from '../../job/job-handler.js';
import type { Outcome } from '../../job/outcome.js';
import { outcomeOfThrown } from '../../job/outcome.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { RegisteredHandler } from '../handler-registry.js';
import { Execution, identityOf } from './execution.js';
import type { JobProcess } from './job-process.js';
import type { RunnableCheck } from './runnable-check.js';
import type { JobTransactions } from './transactional.js';

/** Called when the handler runs, when it is refused, or when its process is over. The first call counts. */
export type Launched = (refused?: Error) => void;

/** The collaborators of `executeHandler`. */
export interface HandlerParts {
  contexts: StoredContexts;
  events: JobEvents;
  loggerFor: (run: ClaimedRun) => ExecutionLogger;
  transactions: Pick<JobTransactions, 'run' | 'complete'>;
}

interface ExecuteOptions {
  launched?: Launched | undefined;
  call?: CallHandler;
}

/** Calls a handler. Not a closure: it is used for each job. */
type CallHandler = (
  process: JobProcess,
  handler: JobHandler,
  context: unknown,
  execution: JobExecution,
) => unknown;

const callHandler: CallHandler = (_process, handler, context, execution) =>
  handler.runJob(context, execution);

/** Jobs that run in the app's own process. */
export class InlineJobs {
  constructor(
    private readonly parts: HandlerParts,
    private readonly rejections: UnhandledRejections,
    private readonly runnable: RunnableCheck,
    private readonly extensions: ExtensionPoints,
  ) {}

  /** Settles the process, and never rejects. */
  execute(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched?: Launched,
  ): void {
    // The job is not part of the transaction of the caller that caused this claim.
    void (mayJoinTransaction()
      ? runOutsideTransaction(() => this.start(process, handler, launched))
      : this.start(process, handler, launched));
  }

  private start(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched?: Launched,
  ): Promise<void> {
    return envelopeOf(process.run.jobContext)?.startBefore
      ? this.runUnlessTooLate(process, handler, launched)
      : this.run(process, handler, launched);
  }

  private async runUnlessTooLate(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched?: Launched,
  ): Promise<void> {
    const tooLate = await this.runnable.outcomeIfTooLate(process.run);
    return tooLate ? process.settle(tooLate) : this.run(process, handler, launched);
  }

  private run(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched?: Launched,
  ): Promise<void> {
    const { parts, call } = this;
    const around = this.extensions.aroundRun.active;
    if (!around) return executeHandler(process, handler, parts, { launched, call });
    return around(process, handler, () =>
      executeHandler(process, handler, parts, { launched, call }),
    );
  }

  private readonly call: CallHandler = (process, ...args) =>
    this.rejections.attribute(process, callHandler, process, ...args);
}

/** Checks the context and calls the handler in this process. Settles the job's process, and never rejects. */
export async function executeHandler(
  process: JobProcess,
  handler: RegisteredHandler<ContextContract>,
  { contexts, events, loggerFor, transactions }: HandlerParts,
  { launched, call = callHandler }: ExecuteOptions = {},
): Promise<void> {
  let checked = false;
  let outcome: Outcome;
  try {
    const { operatorSchema, templateCode, jobContext } = process.run;
    const contract = withOperatorSchema(handler.contract, operatorSchema, templateCode);
    const { traits } = handler;
    const stored =
      traits.version > 0 || envelopeOf(jobContext)
        ? await contexts.openForHandler(process.run, traits)
        : jobContext;
    let context: unknown = contract.decode(stored);
    if (context instanceof Promise) context = await context;
    checked = true;
    process.throwIfStopping();
    const secrets = isSecret(process.run, traits) ? contexts : undefined;
    const execution = new Execution(process, events, loggerFor, transactions, secrets);
    let instance = handler.resolve(context, execution);
    if (instance instanceof Promise) {
      instance = await instance;
      // Creating the instance may have taken longer than the timeout.
      process.throwIfStopping();
    }
    events.emit('run.started', identityOf(process.run));
    launched?.();
    const { transactional } = handler;
    const returned: unknown = transactional
      ? transactions.run(process, transactional, async (manager) => {
          execution.transaction = manager;
          const output = await call(process, instance, context, execution);
          return secrets ? secrets.sealResult(output, process.jobRunIdentifier) : output;
        })
      : call(process, instance, context, execution);
    // Always awaits: a job that ended synchronously would start the next one inside its own call.
    const promised = isThenable(returned);
    const awaited = await (promised ? returned : undefined);
    const result = promised ? awaited : returned;
    const output =
      secrets && !transactional ? secrets.sealResult(result, process.jobRunIdentifier) : result;
    outcome = { kind: 'completed', output };
  } catch (error) {
    if (!checked)
      launched?.((isSecret(process.run, handler.traits) ? redactedError(error) : error) as Error);
    outcome =
      !checked && error instanceof InvalidJobContextError
        ? { kind: 'invalidContext', error }
        : outcomeOfThrown(error);
  }
  process.settle(outcome);
}

/** Awaiting a value whose `then` getter throws would fail a handler that has succeeded. */
function isThenable(value: unknown): boolean {
  try {
    return typeof (value as PromiseLike<unknown> | null)?.then === 'function';
  } catch {
    return false;
  }
}

type OnUnhandledRejection = (process: JobProcess, error: unknown) => void;

const currentJob = new AsyncLocalStorage<{ process: JobProcess; report: OnUnhandledRejection }>();
/** Never removed: a handler may outlive its engine. */
let listening = false;

/**
 * An unhandled rejection ends a Node process. One that comes from a handler which runs inline fails its job instead. All
 * others have their usual effect.
 */
export class UnhandledRejections {
  /** @param isEnabled false: rejections are left alone */
  constructor(
    private readonly isEnabled: boolean,
    private readonly report: OnUnhandledRejection,
  ) {}

  listen(): void {
    if (listening || !this.isEnabled) return;
    listening = true;
    // Before listeners that remove themselves: they are counted then.
    process.prependListener('unhandledRejection', reportRejection);
  }

  /** Attributes the rejections of promises that `call` starts to that job. */
  attribute<A extends unknown[], T>(job: JobProcess, call: (...args: A) => T, ...args: A): T {
    // Once it is used, each promise of the process costs more: 2.5 us of 10 for a no-op job on Node 20.
    if (!this.isEnabled) return call(...args);
    return currentJob.run({ process: job, report: this.report }, call, ...args);
  }
}

function reportRejection(reason: unknown): void {
  const job = currentJob.getStore();
  if (job) return job.report(job.process, reason);
  // With another listener Node would not have ended either.
  if (process.listenerCount('unhandledRejection') > 1 || isTolerant()) return;
  throw reason;
}

const TOLERANT = /--unhandled-rejections[= ](none|warn|warn-with-error-codes)\b/;
const isTolerant = () =>
  TOLERANT.test([...process.execArgv, process.env.NODE_OPTIONS ?? ''].join(' '));
