import { flag } from './option-values.js';

/** What stands around handlers. */
export interface SurroundingsOptions {
  /**
   * Whether guards, interceptors, pipes and exception filters of the whole app (`APP_GUARD`, `useGlobalGuards`, ...) stand
   * around handlers, too. Those of a handler's own class and method always do. Default `false`: they are made for routes.
   */
  globalEnhancers?: boolean;
}

export interface SurroundingsSettings {
  globalEnhancers: boolean;
}

export const SURROUNDINGS_NAMES: readonly (keyof SurroundingsOptions)[] = [
  'globalEnhancers',
];

/** @throws BildadConfigError */
export function readSurroundings({
  globalEnhancers = false,
}: SurroundingsOptions): SurroundingsSettings {
  return { globalEnhancers: flag(globalEnhancers, 'globalEnhancers') };
}
