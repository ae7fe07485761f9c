import type { DataSource } from 'typeorm';
import type { JobEvents } from '../../job/events.js';
import type { BildadModuleOptions, CurrentManager } from '../../options/module-options.js';

/**
 * Shapes every engine of an app from outside of the modules that declare them: as `nestjs-bildad/testing` does with an
 * app under test. Provided under `BILDAD_EXTENSION` by a global module; there is one at the most.
 */
export interface EngineExtension {
  /**
   * Called once for each engine, before it is made, with the options that its module was given.
   * @returns the options that it is made with, which are checked as any
   */
  options?(
    given: BildadModuleOptions,
    engine: { dataSource: DataSource; schema: string },
  ): BildadModuleOptions;
  /** Told once of each engine, when it has been made and before it starts. */
  made?(engine: {
    name: string;
    schema: string;
    dataSource: DataSource;
    /** The engine's own, by which it can be told from others. */
    events: JobEvents;
    currentManager: CurrentManager | undefined;
  }): void;
  /** Around all a handler does, also in what it awaits; `next` never rejects, and has to be called once. */
  aroundRun?(
    run: { jobRunId: string; jobRunIdentifier: string },
    next: () => Promise<void>,
  ): Promise<void>;
}

/** Token of the app's `EngineExtension`. */
export const BILDAD_EXTENSION = Symbol('nestjs-bildad:extension');
