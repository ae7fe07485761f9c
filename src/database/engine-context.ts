import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import type { Settings } from '../options/settings.js';
import type { Store } from './store.js';

/** The parts that nearly every class of an engine needs. Built once per engine, in `nest/module/runtime.ts`. */
export interface EngineContext {
  readonly store: Store;
  readonly events: JobEvents;
  readonly node: NodeState;
  readonly settings: Settings;
}
