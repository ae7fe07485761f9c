import { envelopeOf, isSecret } from '../model/envelope.js';
import { InvalidJobContextError } from '../model/errors.js';
import type { JobEvents } from '../model/events.js';
import type { ClaimedRun } from '../model/facts.js';
import type { ExecutionLogger } from '../model/job-execution.js';
import type { Outcome } from '../model/outcome.js';
import { narrowed, type ContextContract } from '../policy/context.js';
import { redactedError } from '../policy/redacted.js';
import { outcomeOfThrown } from '../policy/said.js';
import type { RegisteredHandler } from '../runner/handler-registry.js';
import type { JobProcess } from '../runner/job-process.js';
import { Execution, identityOf } from './execution.js';
import type { StoredContexts } from './stored-contexts.js';
import { isThenable } from './thenable.js';

/** Told that the handler runs, or why it does not, or that its process is over: the first time counts. */
export type Launched = (refused?: Error) => void;

export interface CarryOutOptions {
  launched?: Launched | undefined;
  /** What the handler is called by. */
  around?: (process: JobProcess, call: () => unknown) => unknown;
}

/** Checks the context and calls the handler, here. Settles the process, and never rejects. */
export async function carryOut(
  process: JobProcess,
  handler: RegisteredHandler<ContextContract>,
  contexts: StoredContexts,
  events: JobEvents,
  loggerFor: (run: ClaimedRun) => ExecutionLogger,
  { launched, around }: CarryOutOptions = {},
): Promise<void> {
  let checked = false;
  let outcome: Outcome;
  try {
    const { operatorSchema, templateCode, jobContext } = process.run;
    const contract = narrowed(handler.contract, operatorSchema, templateCode);
    const { traits } = handler;
    const stored =
      traits.version > 0 || envelopeOf(jobContext)
        ? await contexts.forHandler(process.run, traits)
        : jobContext;
    let context: unknown = contract.decode(stored);
    if (context instanceof Promise) context = await context;
    checked = true;
    process.throwIfStopping();
    let instance = handler.resolve();
    if (instance instanceof Promise) instance = await instance;
    events.emit('run.started', identityOf(process.run));
    launched?.();
    const execution = new Execution(process, events, loggerFor);
    const handlerOf = instance;
    const returned: unknown = around
      ? around(process, () => handlerOf.runJob(context, execution))
      : instance.runJob(context, execution);
    // Waits in any case: a job that ended in this very call would begin the next one inside of itself.
    const promised = isThenable(returned);
    const awaited = await (promised ? returned : undefined);
    let output = promised ? awaited : returned;
    if (traits.encrypt || isSecret(process.run))
      output = contexts.sealedResult(output, process.jobRunIdentifier);
    outcome = { kind: 'completed', output };
  } catch (error) {
    if (!checked)
      launched?.(
        (isSecret(process.run) ? redactedError(error) : error) as Error,
      );
    outcome =
      !checked && error instanceof InvalidJobContextError
        ? { kind: 'invalidContext', error }
        : outcomeOfThrown(error);
  }
  process.settle(outcome);
}
