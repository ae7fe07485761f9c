import type { EntityManager } from 'typeorm';
import { carryOut } from '../../lifecycle/run/execute-handler.js';
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
  /** 0, the default, for a first run. */
  retry?: number;
  /** Default `'performed'`. */
  jobRunIdentifier?: string;
  /** Default: the class's. A run that takes longer is told to stop, and ends as `timedOut` when its handler has. */
  timeout?: Duration;
  /** Stops the run when it aborts, as `killJob` does. */
  signal?: AbortSignal;
  /** The `job.manager` of a handler that is transactional, which needs one; nothing is committed or rolled back here. */
  manager?: EntityManager;
  /** The version that the context is of, where it is one of an older deploy. Default: the class's own. */
  version?: number;
}

/** What became of one run. */
export interface Performed<Result = unknown> {
  outcome: OutcomeKind;
  /** What the handler returned, as it returned it; undefined where it did not. */
  result: Awaited<Result> | undefined;
  /** What it threw, or the InvalidJobContextError of its context. */
  error: unknown;
  /** Why it did not complete, in words; null where it did. */
  reason: string | null;
  /** Of a snooze, in ms. */
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
 * One run of a handler here and now, with no database and no queue: its context is checked and upcast as if it had been
 * enqueued, `job` is what a run has. Nothing is tried again, and nothing is kept. `isolation` and `encrypt` are not heeded.
 * @throws InvalidJobContextError where `enqueueJob` would; BildadConfigError. What the handler throws is in the answer
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
      {
        got: version,
        where: 'performHandler',
      },
    );
  const stored =
    version === traits.version
      ? (await encodeContext(contract, context, Infinity)).value
      : toPlainJson(context, Infinity).value;
  const process = new JobProcess(runOf(read, code, { stored, version }, timeoutMs));
  const told = { progress: [], logs: [] } as Pick<Performed, 'progress' | 'logs'>;
  const events = new JobEvents();
  events.on('run.progress', ({ fraction, message }) => {
    told.progress.push({ fraction, ...(message !== undefined && { message }) });
  });
  const kill = () => process.stop({ kind: 'killed' });
  if (signal?.aborted) kill();
  signal?.addEventListener('abort', kill, { once: true });
  const inTime = runAfter(timeoutMs, () => process.stop({ kind: 'timedOut' }));
  try {
    await carryOut(
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
        loggerFor: () => lineLogger((level, message) => void told.logs.push({ level, message })),
        transactions: transactionsWith(manager, code),
      },
    );
  } finally {
    inTime();
    signal?.removeEventListener('abort', kill);
  }
  // What its own transaction has written is its end, whatever it did then.
  const outcome: Outcome = process.written
    ? { kind: 'completed', output: process.written.output }
    : await process.outcome;
  return { ...ended(outcome), ...told } as Performed<ResultOf<H>>;
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

function transactionsWith(manager: EntityManager | undefined, code: string) {
  return {
    around: (
      _process: JobProcess,
      _settings: unknown,
      call: (manager: EntityManager) => unknown,
    ) => {
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

function ended(outcome: Outcome) {
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
