import type { ClaimJobs } from '../life/claim/claim.js';
import type { DeferredRuns } from '../life/claim/deferred.js';
import { identityOf } from '../life/run/execution.js';
import type { FinishDoor } from '../life/finish.js';
import { InlineJobs } from '../life/run/inline.js';
import { IsolatedJobs } from '../life/run/isolated.js';
import type { Keyring } from '../life/keyring.js';
import { RunJobs } from '../life/run/run.js';
import type { Seams } from '../life/seams.js';
import type { Store } from '../life/store.js';
import type { StoredContexts } from '../life/stored-contexts.js';
import { JobTransactions } from '../life/run/transactional.js';
import { WrappedRuns } from '../life/run/wrapped-runs.js';
import { isSecret } from '../model/envelope.js';
import type { JobEvents } from '../model/events.js';
import type { NodeState } from '../model/node.js';
import type { Settings } from '../model/settings.js';
import type { ContextContract } from '../policy/context.js';
import { redactedError } from '../policy/redacted.js';
import type { HandlerRegistry } from '../runner/handler-registry.js';
import type { ProcessRegistry } from '../runner/process-registry.js';
import { Strays } from '../runner/strays.js';
import { jobLoggers } from './job-logger.js';

interface Parts {
  store: Store;
  claims: ClaimJobs;
  deferred: DeferredRuns;
  keyring: Keyring;
  contexts: StoredContexts;
  node: NodeState;
  handlers: HandlerRegistry<ContextContract>;
  processes: ProcessRegistry;
  door: FinishDoor;
  events: JobEvents;
  settings: Settings;
  seams: Seams;
}

/** What carries out an engine's runs, here and in hosts. */
export function createRuns({
  store,
  claims,
  deferred,
  keyring,
  contexts,
  node,
  handlers,
  processes,
  door,
  events,
  settings,
  seams,
}: Parts) {
  const loggerFor = jobLoggers(events, settings.logFields);
  const nodeId = () => node.id;
  const wrapped = new WrappedRuns(store, claims, keyring, events);
  const isolated = new IsolatedJobs(
    store,
    events,
    loggerFor,
    settings.killGraceMs,
    settings.maxCrashes,
    wrapped,
    nodeId,
  );
  const transactions = new JobTransactions(store, deferred, settings.killGraceMs, nodeId);
  const strays = new Strays(settings.attributeRejections, (process, error) => {
    const { run } = process;
    const traits = handlers.get(run.templateCode)?.traits;
    events.emit('process.stray', {
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
    door,
    events,
    new InlineJobs({ contexts, events, loggerFor, transactions }, strays, wrapped, seams),
    isolated,
    wrapped,
  );
  return { runs, isolated, strays, transactions };
}
