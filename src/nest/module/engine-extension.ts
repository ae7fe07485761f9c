import type { DataSource } from 'typeorm';
import type { JobEvents } from '../../job/events.js';
import type { BildadModuleOptions, CurrentManager } from '../../options/module-options.js';

/**
 * Changes every engine of an app from another module, as `nestjs-bildad/testing` does for an app
 * under test. A global module provides it under `BILDAD_EXTENSION`; an app has at most one.
 */
export interface EngineExtension {
  /**
   * Called once for each engine before it is created, with the options of its module.
   * @returns the options to use, which are checked as usual
   */
  options?(
    given: BildadModuleOptions,
    engine: { dataSource: DataSource; schema: string },
  ): BildadModuleOptions;
  /** Called once for each engine after it was created and before it starts. */
  made?(engine: {
    name: string;
    schema: string;
    dataSource: DataSource;
    /** The engine's events; they also identify the engine. */
    events: JobEvents;
    currentManager: CurrentManager | undefined;
  }): void;
  /** Wraps the asynchronous work of a handler. Must call `next` once; `next` never rejects. */
  aroundRun?(
    run: { jobRunId: string; jobRunIdentifier: string },
    next: () => Promise<void>,
  ): Promise<void>;
}

/** Token of the app's `EngineExtension`. */
export const BILDAD_EXTENSION = Symbol('nestjs-bildad:extension');
