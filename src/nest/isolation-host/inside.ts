import type { Settings } from '../../options/settings.js';
import type { HostSetup } from '../../isolation/host-messages.js';

/** By a name that every copy of this package in the process shares. */
const INSIDE = Symbol.for('nestjs-bildad:host');
const here = globalThis as { [INSIDE]?: HostSetup };

/** This thread or process hosts isolated jobs: the app's engine does not run here. */
export const insideHost = (): boolean => here[INSIDE] !== undefined;

/** Inside a host there is no engine, and jobs can be enqueued. */
export function asInside(settings: Settings): Settings {
  const setup = here[INSIDE];
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

/** Before the app's module is loaded. */
export function enterHost(setup: HostSetup): void {
  here[INSIDE] = setup;
}
