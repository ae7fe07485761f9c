import { envelopeOf, isSecret } from '../../context/envelope.js';
import { InvalidJobContextError } from '../../job/errors.js';
import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { ExecutionLogger, JobExecution, JobHandler } from '../../job/job-handler.js';
import type { Outcome } from '../../job/outcome.js';
import { narrowed, type ContextContract } from '../../context/context-contract.js';
import { redactedError } from '../../context/redaction.js';
import { outcomeOfThrown } from '../../job/outcome-of-error.js';
import type { RegisteredHandler } from '../handler-registry.js';
import type { JobProcess } from './job-process.js';
import { Execution, identityOf } from './execution.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import { isThenable } from './thenable.js';
import type { JobTransactions } from './transactional.js';

/** Told that the handler runs, or why it does not, or that its process is over: the first time counts. */
export type Launched = (refused?: Error) => void;

/** What handlers are called with. */
export interface HandlerParts {
  contexts: StoredContexts;
  events: JobEvents;
  loggerFor: (run: ClaimedRun) => ExecutionLogger;
  transactions: Pick<JobTransactions, 'around' | 'complete'>;
}

export interface CarryOutOptions {
  launched?: Launched | undefined;
  call?: CallHandler;
}

/** Calls a handler. No closure: it is for each job. */
export type CallHandler = (
  process: JobProcess,
  handler: JobHandler,
  context: unknown,
  execution: JobExecution,
) => unknown;

export const callHandler: CallHandler = (_process, handler, context, execution) =>
  handler.runJob(context, execution);

/** Checks the context and calls the handler, here. Settles the process, and never rejects. */
export async function carryOut(
  process: JobProcess,
  handler: RegisteredHandler<ContextContract>,
  { contexts, events, loggerFor, transactions }: HandlerParts,
  { launched, call = callHandler }: CarryOutOptions = {},
): Promise<void> {
  let checked = false;
  let outcome: Outcome;
  try {
    const { operatorSchema, templateCode, jobContext } = process.run;
    const contract = narrowed(handler.contract, operatorSchema, templateCode);
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
      // To make it may have taken longer than its run had.
      process.throwIfStopping();
    }
    events.emit('run.started', identityOf(process.run));
    launched?.();
    const { transactional } = handler;
    const returned: unknown = transactional
      ? transactions.around(process, transactional, async (manager) => {
          execution.transaction = manager;
          const output = await call(process, instance, context, execution);
          return secrets ? secrets.sealResult(output, process.jobRunIdentifier) : output;
        })
      : call(process, instance, context, execution);
    // Waits in any case: a job that ended in this very call would begin the next one inside of itself.
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
