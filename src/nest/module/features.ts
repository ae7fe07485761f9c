import { propagateContext } from '../../features/propagation/propagation.js';
import { publishEvents } from '../../features/diagnostics/index.js';
import { notes } from '../../features/run-log/index.js';
import { telemetry } from '../../features/telemetry/index.js';
import { runAfter, waitAtMost } from '../../concurrency/timers.js';
import { measured } from '../health/measured.js';
import type { BildadRuntime } from './runtime.js';

/** Ends what a feature holds; the engine has stopped. */
export type Detach = () => Promise<void> | void;
/** Plugs a capability into the extension points and events of an engine, before its tables are looked at. */
export type Feature = (bildad: BildadRuntime) => Promise<Detach | void> | Detach | void;

/** What every engine has beside the path; also inside hosts of isolated jobs. */
const FEATURES: readonly Feature[] = [
  publishEvents,
  (bildad) => telemetry(measured(bildad)),
  propagateContext,
  (bildad) => notes({ ...bildad, clock: { runAfter, waitAtMost } }),
  // Its last events are told when the engine has stopped.
  ({ clusterEvents }) =>
    () =>
      clusterEvents.stop(),
];

export async function attachFeatures(
  bildad: BildadRuntime,
  features: readonly Feature[] = FEATURES,
): Promise<Detach> {
  const detached: Detach[] = [];
  for (const feature of features) {
    const detach = await feature(bildad);
    if (detach) detached.push(detach);
  }
  return async () => {
    for (const detach of detached.toReversed()) await detach();
  };
}
