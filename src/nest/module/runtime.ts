import type { DataSource } from 'typeorm';
import { UnrunnableAlarm } from '../../node/unrunnable-jobs.js';
import { ClaimsAhead } from '../../node/prefetch.js';
import { EngineCycle } from '../../node/pass.js';
import { Engine } from '../../node/engine.js';
import { SingleRunnerGuard } from '../../node/guard.js';
import { Heartbeat } from '../../membership/heartbeat.js';
import { Inspection } from '../../control/inspect.js';
import { RunControl } from '../../control/run-control.js';
import { NodeJudge } from '../../membership/lost-node-detector.js';
import { ManyJobs } from '../../control/bulk-operations.js';
import { Killer } from '../../node/killer.js';
import { Membership } from '../../membership/membership.js';
import { Slots } from '../../node/slots.js';
import { Suspects } from '../../node/suspects.js';
import { Sweep } from '../../node/sweep.js';
import type { Ticker } from '../../concurrency/timers.js';
import { VersionWatch } from '../../node/version-watch.js';
import { JobWaiter } from '../../control/job-waiter.js';
import { JobWatcher } from '../../control/job-watcher.js';
import { ClusterEvents } from '../../notifications/cluster-events.js';
import { NotificationBus } from '../../notifications/notification-bus.js';
import { WakeUps } from '../../notifications/wake-ups.js';
import { ChangeJobs } from '../../control/change-jobs.js';
import { ClaimJobs } from '../../lifecycle/claim/claim.js';
import { LateRunRows } from '../../lifecycle/run/late-run-rows.js';
import { Enqueue } from '../../lifecycle/enqueue/enqueue.js';
import { FinishRuns } from '../../lifecycle/finish/finish.js';
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
import { CurrentTransaction } from '../../database/transactions/current-transaction.js';
import { bildadEntities } from '../../database/entities/index.js';
import { measuredEngine } from '../../features/telemetry/index.js';
import { EngineHealth } from '../health/health.js';
import { isInHost } from '../isolation-host/host-environment.js';
import { createRuns } from './runtime-runs.js';
import { createStore } from './runtime-store.js';

/** One engine, put together: the only place that knows every part. */
export function createRuntime(
  dataSource: DataSource,
  schema: string,
  settings: Settings,
  ticker: Ticker,
) {
  const events = new JobEvents();
  const { store, hostPools } = createStore(dataSource, schema, settings, events);
  const entities = bildadEntities(schema);
  const node = new NodeState();
  const engineContext: EngineContext = { store, events, node, settings };
  const bus = new NotificationBus(engineContext);
  const wakeUps = new WakeUps(engineContext, bus);
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
    store,
    templates,
    events,
    wakeUps,
    contexts,
    extensions,
    settings.maxContextBytes,
    current,
  );
  const quarantine = new Quarantine(store, events);
  const lateRows = new LateRunRows(store, quarantine, node);
  const claims = new ClaimJobs(
    store,
    node,
    handlers,
    lateRows,
    quarantine,
    settings.role !== 'producer',
    extensions,
  );
  const finishRuns = new FinishRuns(engineContext, handlers, lateRows, quarantine, extensions);
  const { runs, isolated, strays, transactions } = createRuns({
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
  });

  const guard = new SingleRunnerGuard(store, settings.name, node);
  const ahead = new ClaimsAhead();
  const suspects = new Suspects(claims, processes);
  const slots = new Slots(claims, runs, ahead, suspects, processes, node, settings);
  const inspection = new Inspection(store, processes, isolated, node);
  const heartbeat = new Heartbeat(
    store,
    claims,
    lateRows,
    runs,
    ahead,
    processes,
    events,
    node,
    inspection,
  );
  const cycle = new EngineCycle(
    store,
    guard,
    heartbeat,
    slots,
    finishRuns,
    new VersionWatch(store, events, node),
    new Sweep(store, lateRows, quarantine, node, settings.name),
    quarantine,
    new UnrunnableAlarm(store, events, settings.name),
    new NodeJudge(store, events, node),
    suspects,
    events,
    node,
    settings.maxCrashes,
  );
  const killer = new Killer(
    store,
    processes,
    runs,
    ahead,
    finishRuns,
    events,
    node,
    settings.shutdown.killGracePeriod,
  );
  const runControl = new RunControl(store, processes, finishRuns, lateRows, runs, killer, contexts);
  const many = new ManyJobs(store, runControl, wakeUps);
  const changes = new ChangeJobs(
    store,
    templates,
    wakeUps,
    contexts,
    settings.maxContextBytes,
    current,
  );
  const engine = new Engine(
    cycle,
    slots,
    killer,
    heartbeat,
    runs,
    processes,
    ticker,
    wakeUps,
    bus,
    new Membership(
      store,
      claims,
      handlers,
      processes,
      ahead,
      heartbeat,
      killer,
      suspects,
      events,
      node,
      settings,
    ),
    hostPools,
    events,
    node,
    settings,
  );

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
    strays,
    transactions,
    cycle,
    slots,
    killer,
    runControl,
    many,
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

/** What the facades and the lifecycle share. */
export type BildadRuntime = ReturnType<typeof createRuntime>;
export const BILDAD_RUNTIME = Symbol('nestjs-bildad:runtime');
