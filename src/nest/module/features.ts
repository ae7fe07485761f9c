import { propagateContext } from '../../features/propagation/propagation.js';
import { publishEvents } from '../../features/diagnostics/index.js';
import { collectRunReports } from '../../features/run-log/index.js';
import { startTelemetry } from '../../features/telemetry/index.js';
import { pruneRunLog } from '../../features/run-log/prune-run-log.js';
import type { BildadRuntime } from './runtime.js';

/** Stops a feature, after the engine has stopped. */
export type StopFeature = () => Promise<void> | void;
/** Registers a feature with the extension points and events of an engine, before its tables are used. */
export type Feature = (bildad: BildadRuntime) => Promise<StopFeature | void> | StopFeature | void;

/** The features of every engine, also in hosts of isolated jobs. */
const FEATURES: readonly Feature[] = [
  publishEvents,
  ({ measured }) => startTelemetry(measured),
  propagateContext,
  collectRunReports,
  (bildad) => {
    const step = pruneRunLog(bildad);
    return bildad.extensions.passSteps.register(step.name, step);
  },
  // Last events are sent after the engine has stopped.
  ({ clusterEvents }) =>
    () =>
      clusterEvents.stop(),
];

export async function startFeatures(bildad: BildadRuntime): Promise<StopFeature> {
  const stops: StopFeature[] = [];
  for (const feature of FEATURES) {
    const stop = await feature(bildad);
    if (stop) stops.push(stop);
  }
  return async () => {
    for (const stop of stops.toReversed()) await stop();
  };
}
