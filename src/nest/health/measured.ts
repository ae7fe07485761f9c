import type { Measured } from '../../features/telemetry/index.js';
import { DEFAULT_SCHEMA } from '../../options/settings.js';
import { queueDepths } from '../../features/telemetry/queue-depth.sql.js';
import { insideHost } from '../isolation-host/inside.js';
import { Looks } from './throttled-probe.js';
import type { BildadRuntime } from '../module/runtime.js';

/** Who collects metrics waits no longer than this for the database. */
const PATIENCE_MS = 2_000;

/** One attribute, not two: each makes each value dearer. */
const nameOf = (schema: string, name: string) =>
  schema === DEFAULT_SCHEMA ? name : `${schema}/${name}`;

const made = new WeakMap<BildadRuntime, Measured>();

/** What of an engine is measured: the same for all its sinks. */
export function measured(bildad: BildadRuntime): Measured {
  let one = made.get(bildad);
  if (!one) {
    const { store, settings } = bildad;
    const depths = new Looks(
      () => queueDepths(store.db, store.tables),
      settings.telemetry.queueInterval,
    );
    one = {
      ...bildad,
      engine: nameOf(store.tables.schema, settings.name),
      hosted: insideHost(),
      depths: async () => (await depths.latest(PATIENCE_MS)) ?? [],
    };
    made.set(bildad, one);
  }
  return one;
}
