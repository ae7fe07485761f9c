import type { DataSource } from 'typeorm';
import { Prefetch } from '../../lifecycle/claim/prefetch.js';
import { EnginePass } from '../../node/pass.js';
import { engineSteps, ExpireRuns } from '../../node/pass-steps.js';
import { Engine } from '../../node/engine.js';
import { RunLeases } from '../../membership/run-leases.js';
import { Inspection } from '../../control/inspect.js';
import { RunControl } from '../../control/run-control.js';
import { BulkOperations } from '../../control/bulk-operations.js';
import { Killer } from '../../lifecycle/run/killer.js';
import { Membership } from '../../membership/membership.js';
import { Slots } from '../../node/slots.js';
import { Suspects } from '../../lifecycle/claim/suspects.js';
import type { Ticker } from '../../concurrency/timers.js';
import { SchemaVersionCheck } from '../../node/schema-version-check.js';
import { JobWaiter } from '../../control/job-waiter.js';
import { JobWatcher } from '../../control/job-watcher.js';
import { ClusterEvents } from '../../notifications/cluster-events.js';
import { NotificationBus } from '../../notifications/notification-bus.js';
import { WakeUps } from '../../notifications/wake-ups.js';
import { ChangeJobs } from '../../control/change-jobs.js';
import { ClaimJobs } from '../../lifecycle/claim/claim.js';
import { LateRunRows } from '../../lifecycle/run/late-run-rows.js';
import { Enqueue } from '../../lifecycle/enqueue/enqueue.js';
import { FinishRuns } from '../../lifecycle/finish/finish-runs.js';
import { Keyring } from '../../context/keyring.js';
import { Quarantine } from '../../lifecycle/claim/quarantine.js';
import { ExtensionPoints } from '../../lifecycle/extension-points.js';
import { StoredContexts } from '../../context/stored-contexts.js';
import { Templates } from '../../lifecycle/templates/templates.js';
import type { EngineContext } from '../../database/engine-context.js';
import { JobEvents } from '../../job/events.js';
import { NodeState } from '../../job/node-state.js';
import type { Settings } from '../../options/settings.js';
import type { ContextContract } from '../../context/context-contract.js';
import { HandlerRegistry } from '../../lifecycle/handler-registry.js';
import { ProcessRegistry } from '../../lifecycle/run/process-registry.js';
import { CommitWatch } from '../../database/transactions/commit-watch.js';
import { CurrentTransaction } from '../../database/transactions/current-transaction.js';
import { bildadEntities } from '../../database/entities/index.js';
import { measuredEngine } from '../../features/telemetry/index.js';
import { EngineHealth } from '../health/health.js';
import { isInHost } from '../isolation-host/host-environment.js';
import { identityOf } from '../../lifecycle/run/execution.js';
import { InlineJobs, UnhandledRejections } from '../../lifecycle/run/execute-handler.js';
import { IsolatedJobs } from '../../lifecycle/run/isolated.js';
import { RunJobs } from '../../lifecycle/run/run-jobs.js';
import { JobTransactions } from '../../lifecycle/run/transactional.js';
import { RunnableCheck } from '../../lifecycle/run/runnable-check.js';
import { isSecret } from '../../context/envelope.js';
import { redactedError } from '../../context/redaction.js';
import { jobLoggers } from '../logging/job-logger.js';
import { EnginePool } from '../../database/connection/engine-pool.js';
import { HostPools } from '../../database/connection/host-pools.js';
import { tablesOf } from '../../database/tables.js';

/** At shutdown, connections of the host app whose server does not answer within this time are destroyed. */
const ANSWER_LIMIT_MS = 2_000;

/** Builds one engine: the only place that knows every part. */
export function createRuntime(
  dataSource: DataSource,
  schema: string,
  settings: Settings,
  ticker: Ticker,
) {
  const events = new JobEvents();
  const db = new EnginePool(dataSource, {
    queryTimeoutMs: settings.queryTimeout,
    max: settings.connections,
    onLost: (error) => events.emit('database.lost', { error }),
    onRestored: (outageMs) => events.emit('database.restored', { outageMs }),
  });
  const store = { dataSource, db, tables: tablesOf(schema) };
  const hostPools = new HostPools(dataSource);
  const entities = bildadEntities(schema);
  const node = new NodeState();
  const engineContext: EngineContext = { store, events, node, settings };
  const bus = new NotificationBus(engineContext);
  const commits = new CommitWatch(dataSource);
  const wakeUps = new WakeUps(bus, commits);
  const clusterEvents = new ClusterEvents(engineContext, bus);
  const waiter = new JobWaiter(engineContext, bus);
  const watcher = new JobWatcher(engineContext, bus);
  const handlers = new HandlerRegistry<ContextContract>();
  const processes = new ProcessRegistry();

  const keyring = new Keyring(settings.encryption);
  const contexts = new StoredContexts(keyring);
  const extensions = new ExtensionPoints();
  const templates = new Templates(store, handlers);
  const current = new CurrentTransaction(store, settings.currentManager);
  const enqueue = new Enqueue(
    engineContext,
    templates,
    contexts,
    extensions,
    wakeUps,
    current,
    commits,
  );
  const quarantine = new Quarantine(engineContext);
  const lateRows = new LateRunRows(store, quarantine, node);
  const claims = new ClaimJobs(engineContext, handlers, lateRows, quarantine, extensions);
  const finishRuns = new FinishRuns(engineContext, handlers, lateRows, quarantine, extensions);
  const killGraceMs = settings.shutdown.killGracePeriod;
  const loggerFor = jobLoggers(events, settings.logFields);
  const nodeId = () => node.id;
  const runnable = new RunnableCheck(store, claims, keyring, events);
  const isolated = new IsolatedJobs(
    store,
    events,
    loggerFor,
    killGraceMs,
    settings.maxCrashes,
    runnable,
    nodeId,
  );
  const transactions = new JobTransactions(store, lateRows, killGraceMs, extensions, nodeId);
  const rejections = new UnhandledRejections(settings.attributeRejections, (process, error) => {
    const { run } = process;
    const traits = handlers.get(run.templateCode)?.traits;
    events.emit('process.unhandledRejection', {
      ...identityOf(run),
      error: isSecret(run, traits) ? redactedError(error) : error,
      late: process.isDecided,
    });
    // No grace period: the handler may work on, and would run beside its own retry.
    process.stop({ kind: 'failed', error });
  });
  const runs = new RunJobs(
    handlers,
    processes,
    finishRuns,
    events,
    new InlineJobs({ contexts, events, loggerFor, transactions }, rejections, runnable, extensions),
    isolated,
    runnable,
  );

  const prefetch = new Prefetch();
  const suspects = new Suspects(claims, processes);
  const slots = new Slots(engineContext, claims, runs, prefetch, suspects, processes);
  const inspection = new Inspection(store, processes, isolated, node);
  const nodeReport = () => ({ ...inspection.report(), facts: extensions.readNodeFacts() });
  const leases = new RunLeases(
    engineContext,
    claims,
    lateRows,
    runs,
    prefetch,
    processes,
    nodeReport,
  );
  const expireRuns = new ExpireRuns(engineContext, leases, lateRows, finishRuns, suspects);
  const steps = { engine: engineContext, expireRuns, leases, lateRows, quarantine, finishRuns };
  for (const step of engineSteps(steps)) extensions.passSteps.register(step.name, step);
  const versions = new SchemaVersionCheck(engineContext);
  const pass = new EnginePass(engineContext, extensions, expireRuns, versions, leases, slots);
  const killer = new Killer(engineContext, processes, runs, prefetch, finishRuns);
  const runControl = new RunControl(store, processes, finishRuns, lateRows, runs, killer, contexts);
  const bulkOperations = new BulkOperations(store, runControl, wakeUps, enqueue);
  const changes = new ChangeJobs(
    store,
    templates,
    wakeUps,
    contexts,
    settings.maxContextBytes,
    current,
  );
  const membership = new Membership(
    engineContext,
    claims,
    handlers,
    processes,
    prefetch,
    leases,
    killer,
    suspects,
  );
  const hostConnections = { stop: () => hostPools.destroyDead(ANSWER_LIMIT_MS) };
  const engine = new Engine(engineContext, pass, slots, killer, leases, runs, processes, ticker, {
    membership,
    wakeUps,
    bus,
    hostConnections,
  });

  const health = new EngineHealth(engineContext, processes, runs);
  const measured = measuredEngine(engineContext, extensions, processes, runs, isInHost());

  return {
    store,
    hostPools,
    clusterEvents,
    entities,
    settings,
    node,
    events,
    handlers,
    processes,
    templates,
    keyring,
    contexts,
    extensions,
    current,
    enqueue,
    claims,
    lateRows,
    finishRuns,
    runs,
    isolated,
    rejections,
    transactions,
    pass,
    slots,
    killer,
    runControl,
    bulkOperations,
    changes,
    inspection,
    wakeUps,
    waiter,
    watcher,
    engine,
    health,
    measured,
  };
}

/** The parts of an engine, for the facades and the lifecycle. */
export type BildadRuntime = ReturnType<typeof createRuntime>;
export const BILDAD_RUNTIME = Symbol('nestjs-bildad:runtime');
