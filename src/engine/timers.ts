/** Where the engine's timers live: in the app, the registry of `@nestjs/schedule`, under names an operator can list. */
export interface Timers {
  /** @returns how to stop it */
  every(name: string, ms: number, work: () => void): () => void;
  /** @returns how to stop it */
  once(name: string, ms: number, work: () => void): () => void;
}

/** Longer timeouts fire at once in Node. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;
