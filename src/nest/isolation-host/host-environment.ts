import type { Settings } from '../../options/settings.js';
import type { HostSetup } from '../../isolation/host-protocol.js';

/** A registered symbol, because a process may load several copies of this package. */
const HOST_SETUP = Symbol.for('nestjs-bildad:host');
const globals = globalThis as { [HOST_SETUP]?: HostSetup };

/** Whether this thread or process hosts isolated jobs. The app's engine does not run in a host. */
export const isInHost = (): boolean => globals[HOST_SETUP] !== undefined;

/** In a host the engine only enqueues. */
export function settingsInHost(settings: Settings): Settings {
  const setup = globals[HOST_SETUP];
  return setup
    ? {
        ...settings,
        role: 'producer',
        tickInterval: false,
        isolation: undefined,
        connections: setup.connections,
      }
    : settings;
}

/** Must be called before the app's module is loaded. */
export function enterHost(setup: HostSetup): void {
  globals[HOST_SETUP] = setup;
}
