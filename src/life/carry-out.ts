import { InvalidJobContextError } from '../model/errors.js';
import type { JobEvents } from '../model/events.js';
import type { ClaimedRun } from '../model/facts.js';
import type { ExecutionLogger } from '../model/job-execution.js';
import type { Outcome } from '../model/outcome.js';
import { narrowed, type ContextContract } from '../policy/context.js';
import type { RegisteredHandler } from '../runner/handler-registry.js';
import type { JobProcess } from '../runner/job-process.js';
import { Execution, identityOf } from './execution.js';
import { isThenable } from './thenable.js';
import type { JobTransactions } from './transactional.js';

/** Told that the handler runs, or why it does not, or that its process is over: the first time counts. */
export type Launched = (refused?: Error) => void;

/** Checks the context and calls the handler, here. Settles the process, and never rejects. */
export async function carryOut(
  process: JobProcess,
  handler: RegisteredHandler<ContextContract>,
  events: JobEvents,
  loggerFor: (run: ClaimedRun) => ExecutionLogger,
  transactions: JobTransactions,
  launched?: Launched,
): Promise<void> {
  let checked = false;
  let outcome: Outcome;
  try {
    const { operatorSchema, templateCode, jobContext } = process.run;
    const contract = narrowed(handler.contract, operatorSchema, templateCode);
    let context: unknown = contract.decode(jobContext);
    if (context instanceof Promise) context = await context;
    checked = true;
    process.throwIfStopping();
    let instance = handler.resolve();
    if (instance instanceof Promise) instance = await instance;
    const execution = new Execution(process, events, loggerFor, transactions);
    events.emit('run.started', identityOf(process.run));
    launched?.();
    const { transactional } = handler;
    const returned: unknown = transactional
      ? transactions.around(process, transactional, {
          handler: instance,
          context,
          execution,
        })
      : instance.runJob(context, execution);
    // Waits in any case: a job that ended in this very call would begin the next one inside of itself.
    const promised = isThenable(returned);
    const awaited = await (promised ? returned : undefined);
    const output = promised ? awaited : returned;
    outcome = { kind: 'completed', output };
  } catch (error) {
    if (!checked) launched?.(error as Error);
    outcome =
      !checked && error instanceof InvalidJobContextError
        ? { kind: 'invalidContext', error }
        : { kind: 'failed', error };
  }
  process.settle(outcome);
}
