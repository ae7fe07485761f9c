import type { ClaimJobs } from '../../lifecycle/claim/claim.js';
import type { LateRunRows } from '../../lifecycle/run/late-run-rows.js';
import { identityOf } from '../../lifecycle/run/execution.js';
import type { FinishRuns } from '../../lifecycle/finish/finish.js';
import { InlineJobs } from '../../lifecycle/run/inline.js';
import { IsolatedJobs } from '../../lifecycle/run/isolated.js';
import type { Keyring } from '../../context/keyring.js';
import { RunJobs } from '../../lifecycle/run/run.js';
import type { ExtensionPoints } from '../../lifecycle/extension-points.js';
import type { Store } from '../../database/store.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import { JobTransactions } from '../../lifecycle/run/transactional.js';
import { WrappedRuns } from '../../lifecycle/run/runnable-check.js';
import { isSecret } from '../../context/envelope.js';
import type { JobEvents } from '../../job/events.js';
import type { NodeState } from '../../job/node-state.js';
import type { Settings } from '../../options/settings.js';
import type { ContextContract } from '../../context/context-contract.js';
import { redactedError } from '../../context/redaction.js';
import type { HandlerRegistry } from '../../lifecycle/handler-registry.js';
import type { ProcessRegistry } from '../../lifecycle/run/process-registry.js';
import { Strays } from '../../lifecycle/run/unhandled-rejections.js';
import { jobLoggers } from '../logging/job-logger.js';

interface Parts {
  store: Store;
  claims: ClaimJobs;
  lateRows: LateRunRows;
  keyring: Keyring;
  contexts: StoredContexts;
  node: NodeState;
  handlers: HandlerRegistry<ContextContract>;
  processes: ProcessRegistry;
  finishRuns: FinishRuns;
  events: JobEvents;
  settings: Settings;
  extensions: ExtensionPoints;
}

/** What carries out an engine's runs, here and in hosts. */
export function createRuns({
  store,
  claims,
  lateRows,
  keyring,
  contexts,
  node,
  handlers,
  processes,
  finishRuns,
  events,
  settings,
  extensions,
}: Parts) {
  const loggerFor = jobLoggers(events, settings.logFields);
  const nodeId = () => node.id;
  const wrapped = new WrappedRuns(store, claims, keyring, events);
  const isolated = new IsolatedJobs(
    store,
    events,
    loggerFor,
    settings.shutdown.killGracePeriod,
    settings.maxCrashes,
    wrapped,
    nodeId,
  );
  const transactions = new JobTransactions(
    store,
    lateRows,
    settings.shutdown.killGracePeriod,
    extensions,
    nodeId,
  );
  const strays = new Strays(settings.attributeRejections, (process, error) => {
    const { run } = process;
    const traits = handlers.get(run.templateCode)?.traits;
    events.emit('process.unhandledRejection', {
      ...identityOf(run),
      error: isSecret(run, traits) ? redactedError(error) : error,
      late: process.isDecided,
    });
    // No grace period: its handler may be well, and would run beside its own retry.
    process.stop({ kind: 'failed', error });
  });
  const runs = new RunJobs(
    handlers,
    processes,
    finishRuns,
    events,
    new InlineJobs({ contexts, events, loggerFor, transactions }, strays, wrapped, extensions),
    isolated,
    wrapped,
  );
  return { runs, isolated, strays, transactions };
}
