import type { Measured } from '../features/telemetry/index.js';
import { queueDepths } from '../store/depth.store.js';
import { insideHost } from './host/inside.js';
import { Looks } from './looks.js';
import type { BildadRuntime } from './runtime.js';

/** Who collects metrics waits no longer than this for the database. */
const PATIENCE_MS = 2_000;

const made = new WeakMap<BildadRuntime, Measured>();

/** What of an engine is measured: the same for all its sinks. */
export function measured(bildad: BildadRuntime): Measured {
  let one = made.get(bildad);
  if (!one) {
    const { store, settings } = bildad;
    const depths = new Looks(
      () => queueDepths(store.db, store.tables),
      settings.telemetry.queueIntervalMs,
    );
    one = {
      ...bildad,
      schema: store.tables.schema,
      hosted: insideHost(),
      depths: async () => (await depths.latest(PATIENCE_MS)) ?? [],
    };
    made.set(bildad, one);
  }
  return one;
}
