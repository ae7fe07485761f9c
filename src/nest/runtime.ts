import type { DataSource } from 'typeorm';
import { UnrunnableAlarm } from '../engine/alarm.js';
import { ClaimsAhead } from '../engine/ahead.js';
import { EngineCycle } from '../engine/cycle.js';
import { Engine } from '../engine/engine.js';
import { SingleRunnerGuard } from '../engine/guard.js';
import { Heartbeat } from '../engine/heartbeat.js';
import { Inspection } from '../engine/inspect.js';
import { Interventions } from '../engine/intervene.js';
import { NodeJudge } from '../engine/judge.js';
import { ManyJobs } from '../engine/many.js';
import { Killer } from '../engine/killer.js';
import { Membership } from '../engine/membership.js';
import { Slots } from '../engine/slots.js';
import { Suspects } from '../engine/suspects.js';
import { Sweep } from '../engine/sweep.js';
import { Listener } from '../engine/listener.js';
import type { Ticker } from '../engine/timers.js';
import { VersionWatch } from '../engine/version-watch.js';
import { Waits } from '../engine/waits.js';
import { WakeUps } from '../engine/wake-ups.js';
import { ChangeJobs } from '../life/enqueue/change.js';
import { ClaimJobs } from '../life/claim/claim.js';
import { DeferredRuns } from '../life/claim/deferred.js';
import { Enqueue } from '../life/enqueue/enqueue.js';
import { FinishDoor } from '../life/finish.js';
import { Keyring } from '../life/keyring.js';
import { MissedJobs } from '../life/missed.js';
import { Quarantine } from '../life/claim/quarantine.js';
import { Seams } from '../life/seams.js';
import { StoredContexts } from '../life/stored-contexts.js';
import { Templates } from '../life/templates.js';
import { JobEvents } from '../model/events.js';
import { NodeState } from '../model/node.js';
import type { Settings } from '../model/settings.js';
import type { ContextContract } from '../policy/context.js';
import { HandlerRegistry } from '../runner/handler-registry.js';
import { ProcessRegistry } from '../runner/process-registry.js';
import { CurrentTransaction } from '../store/ambient.js';
import { bildadEntities } from '../store/entities/index.js';
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
  const { store, hostPools, news } = createStore(dataSource, schema, settings, events);
  const entities = bildadEntities(schema);
  const node = new NodeState();
  const handlers = new HandlerRegistry<ContextContract>();
  const processes = new ProcessRegistry();

  const keyring = new Keyring(settings.encryption);
  const contexts = new StoredContexts(keyring);
  const seams = new Seams();
  const templates = new Templates(store, handlers);
  const wakeUps = new WakeUps(store, events, node, settings.notify);
  const current = new CurrentTransaction(store, settings.currentManager);
  const enqueue = new Enqueue(
    store,
    templates,
    events,
    wakeUps,
    contexts,
    seams,
    settings.maxContextBytes,
    current,
  );
  const quarantine = new Quarantine(store, events);
  const deferred = new DeferredRuns(store, quarantine, node);
  const claims = new ClaimJobs(
    store,
    node,
    handlers,
    deferred,
    quarantine,
    settings.role !== 'producer',
  );
  const door = new FinishDoor(store, events, handlers, deferred, quarantine, settings.backoff);
  const { runs, isolated, strays, transactions } = createRuns({
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
  });

  const guard = new SingleRunnerGuard(store, settings.name, node);
  const ahead = new ClaimsAhead();
  const suspects = new Suspects(claims, processes);
  const slots = new Slots(claims, runs, ahead, suspects, processes, node, settings);
  const inspection = new Inspection(store, processes, isolated, node);
  const heartbeat = new Heartbeat(
    store,
    claims,
    deferred,
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
    door,
    new VersionWatch(store, events, node),
    new Sweep(store, deferred, quarantine, node, settings.name),
    quarantine,
    new UnrunnableAlarm(store, events, settings.name),
    new NodeJudge(store, events, node),
    suspects,
    new MissedJobs(store, events, node),
    events,
    node,
    settings.maxCrashes,
  );
  const killer = new Killer(
    store,
    processes,
    runs,
    ahead,
    door,
    events,
    node,
    settings.killGraceMs,
  );
  const interventions = new Interventions(store, processes, door, deferred, runs, killer, contexts);
  const many = new ManyJobs(store, interventions, wakeUps);
  const changes = new ChangeJobs(
    store,
    templates,
    wakeUps,
    contexts,
    settings.maxContextBytes,
    current,
  );
  const waits = new Waits(store, events, node, settings);
  const engine = new Engine(
    cycle,
    slots,
    killer,
    heartbeat,
    runs,
    processes,
    ticker,
    wakeUps,
    new Listener(store, events, node, waits, news),
    waits,
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

  return {
    store,
    hostPools,
    news,
    entities,
    settings,
    node,
    events,
    handlers,
    processes,
    templates,
    keyring,
    contexts,
    seams,
    current,
    enqueue,
    claims,
    deferred,
    door,
    runs,
    isolated,
    strays,
    transactions,
    cycle,
    slots,
    killer,
    interventions,
    many,
    changes,
    inspection,
    wakeUps,
    waits,
    engine,
  };
}

/** What the facades and the lifecycle share. */
export type BildadRuntime = ReturnType<typeof createRuntime>;
export const BILDAD_RUNTIME = Symbol('nestjs-bildad:runtime');
