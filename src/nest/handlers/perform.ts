import type { EntityManager } from 'typeorm';
import { executeHandler } from '../../lifecycle/run/execute-handler.js';
import { Keyring } from '../../context/keyring.js';
import { lineLogger } from '../../lifecycle/run/handler-output.js';
import { StoredContexts } from '../../context/stored-contexts.js';
import type { Duration } from '../../job/duration.js';
import { ENVELOPE } from '../../context/envelope.js';
import { BildadConfigError } from '../../job/errors.js';
import { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { LogLevel, ContextOf, JobHandler, ResultOf } from '../../job/job-handler.js';
import type { JsonValue } from '../../job/json.js';
import { jobRunIdentifier, maxRetries, timeout } from '../../options/job-options.js';
import { group, integer, optional, withDefault, type SchemaOf } from '../../options/reader.js';
import type { Outcome, OutcomeKind } from '../../job/outcome.js';
import { encodeContext } from '../../context/context-contract.js';
import { toPlainJson } from '../../context/plain-json.js';
import { reasonOf } from '../../job/storable-output.js';
import { runAfter } from '../../concurrency/timers.js';
import { JobProcess } from '../../lifecycle/run/job-process.js';
import { jobOptionsOf } from './bildad-job.decorator.js';
import { declarationOf } from './declaration.js';

export interface PerformOptions {
  /** 0 for the first run. Default 0. */
  retry?: number;
  /** Default `'performed'`. */
  jobRunIdentifier?: string;
  /** A run that takes longer is aborted, and ends as `timedOut` when its handler has stopped. Default: the class's. */
  timeout?: Duration;
  /** Aborts the run, as `killJob` does. */
  signal?: AbortSignal;
  /** The `job.manager` of a transactional handler, which requires one. It is neither committed nor rolled back. */
  manager?: EntityManager;
  /** The version of the context, if it is one of an older deploy. Default: the class's version. */
  version?: number;
}

/** How one run ended. */
export interface Performed<Result = unknown> {
  outcome: OutcomeKind;
  /** The return value of the handler; undefined if it threw. */
  result: Awaited<Result> | undefined;
  /** The error of the handler, or the InvalidJobContextError of its context. */
  error: unknown;
  /** Why the run did not complete; null if it did. */
  reason: string | null;
  /** The delay of a snooze, in ms. */
  delayMs: number | undefined;
  progress: { fraction: number; message?: string }[];
  logs: { level: LogLevel; message: string }[];
}

const readOptions = group({
  retry: withDefault(maxRetries, 0),
  jobRunIdentifier: withDefault(jobRunIdentifier, 'performed'),
  timeout: optional(timeout),
  signal: (value) => value as AbortSignal | undefined,
  manager: (value) => value as EntityManager | undefined,
  version: optional(integer(0, 1_000_000)),
} satisfies SchemaOf<PerformOptions>);

/**
 * Runs a handler once, without a database or a queue. The context is validated and upcast as if it had been enqueued.
 * Nothing is retried or stored. `isolation` and `encrypt` are ignored.
 * @throws InvalidJobContextError as `enqueueJob` does; BildadConfigError. An error of the handler is in the result
 */
export async function performHandler<H extends JobHandler>(
  handler: H,
  context: ContextOf<H>,
  options: PerformOptions = {},
): Promise<Performed<ResultOf<H>>> {
  const target = (handler as object | undefined)?.constructor;
  const declared = jobOptionsOf(target);
  if (!declared || typeof handler.runJob !== 'function')
    throw new BildadConfigError(
      'handler',
      'must be an instance of a class decorated with @BildadJob',
      { got: handler, where: 'performHandler' },
    );
  const read = readOptions(options, '', 'performHandler');
  const { name } = target as { name: string };
  const { template, ...declaration } = declarationOf(declared, name);
  const { code, defaultTimeoutMs } = template;
  const { contract } = declaration;
  const traits = { ...declaration.traits, encrypt: false };
  const { version = traits.version, timeout: timeoutMs = defaultTimeoutMs, manager, signal } = read;
  if (version > traits.version)
    throw new BildadConfigError(
      'version',
      `must be at most the version of the class, ${traits.version}`,
      { got: version, where: 'performHandler' },
    );
  const stored =
    version === traits.version
      ? (await encodeContext(contract, context, Infinity)).value
      : toPlainJson(context, Infinity).value;
  const process = new JobProcess(runOf(read, code, { stored, version }, timeoutMs));
  const reported = { progress: [], logs: [] } as Pick<Performed, 'progress' | 'logs'>;
  const events = new JobEvents();
  events.on('run.progress', ({ fraction, message }) => {
    reported.progress.push({ fraction, ...(message !== undefined && { message }) });
  });
  const kill = () => process.stop({ kind: 'killed' });
  if (signal?.aborted) kill();
  signal?.addEventListener('abort', kill, { once: true });
  const cancelTimeout = runAfter(timeoutMs, () => process.stop({ kind: 'timedOut' }));
  try {
    await executeHandler(
      process,
      {
        code,
        className: name,
        ...declaration,
        isolation: 'inline',
        traits,
        resolve: () => handler,
      },
      {
        contexts: new StoredContexts(new Keyring(undefined)),
        events,
        loggerFor: () =>
          lineLogger((level, message) => void reported.logs.push({ level, message })),
        transactions: createTransactions(manager, code),
      },
    );
  } finally {
    cancelTimeout();
    signal?.removeEventListener('abort', kill);
  }
  // A run that completed in its own transaction has ended, whatever the handler did after that.
  const outcome: Outcome = process.written
    ? { kind: 'completed', output: process.written.output }
    : await process.outcome;
  return { ...endFacts(outcome), ...reported } as Performed<ResultOf<H>>;
}

const runOf = (
  { retry, jobRunIdentifier }: ReturnType<typeof readOptions>,
  code: string,
  { stored, version }: { stored: JsonValue; version: number },
  timeoutMs: number,
): ClaimedRun => ({
  jobRunId: '1',
  jobQueueEntryId: '1',
  jobTemplateId: '1',
  jobRunIdentifier,
  templateCode: code,
  retry,
  maxRetries: 0,
  uncountedRuns: 0,
  backoff: null,
  jobContext: version > 0 ? { [ENVELOPE]: { version }, value: stored } : stored,
  operatorSchema: null,
  timeoutMs,
  timeoutAtMs: Date.now() + timeoutMs,
});

function createTransactions(manager: EntityManager | undefined, code: string) {
  return {
    run: (_process: JobProcess, _settings: unknown, call: (manager: EntityManager) => unknown) => {
      if (manager) return Promise.resolve(call(manager));
      throw new BildadConfigError(
        'manager',
        `must be an EntityManager, because "${code}" is transactional`,
        { where: 'performHandler' },
      );
    },
    complete: (process: JobProcess, _manager: unknown, output: unknown) => {
      process.written = { output, fate: 'removed' };
      return Promise.resolve();
    },
  };
}

function endFacts(outcome: Outcome) {
  const error = 'error' in outcome ? outcome.error : undefined;
  const why = 'why' in outcome ? outcome.why : undefined;
  return {
    outcome: outcome.kind,
    result: outcome.kind === 'completed' ? outcome.output : undefined,
    error,
    reason:
      outcome.kind === 'completed'
        ? null
        : error === undefined
          ? (why ?? outcome.kind)
          : reasonOf(error),
    delayMs: outcome.kind === 'snoozed' ? outcome.delayMs : undefined,
  };
}
