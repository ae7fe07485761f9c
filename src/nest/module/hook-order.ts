import {
  Injectable,
  Logger,
  Module,
  type OnApplicationBootstrap,
  type OnModuleDestroy,
} from '@nestjs/common';
import { ModulesContainer } from '@nestjs/core';
import { isMainThread } from 'node:worker_threads';
import { runAfter } from '../../concurrency/timers.js';

/** Below that of any module that Nest has walked to: the root's is 1, of global ones the highest number there is. */
const OUTERMOST = -1;
/** An app may enable its shutdown hooks some time after it is ready. */
const ENABLED_WITHIN_MS = 5_000;

/** An engine as the app starts and stops it. */
export interface AppEngine {
  /** Where it starts with the app. */
  boot(): Promise<void>;
  /** Never rejects. */
  stop(): Promise<void>;
  /** The app does not start: no connection stays. */
  giveUp(): Promise<void>;
}

/**
 * Hooks that come last when the app starts, and first when it is closed: nothing is claimed before all others are
 * ready, and what a job uses is there until the last job has ended. Nest calls them by the distance of a module, and
 * that of a global one, as BildadModule is, would have it the other way round. All engines of an app share it.
 */
@Injectable()
export class AppEdge implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly engines = new Set<AppEngine>();
  private stopWatching: (() => void) | undefined;
  private closing = false;

  constructor(modules: ModulesContainer) {
    for (const module of modules.values())
      if (module.metatype === AppEdgeModule) Reflect.set(module, 'distance', OUTERMOST);
  }

  add(engine: AppEngine): void {
    this.engines.add(engine);
  }

  /** @throws what the first engine that does not start says; none runs then */
  async onApplicationBootstrap(): Promise<void> {
    const engines = [...this.engines];
    const failed = (await Promise.allSettled(engines.map((engine) => engine.boot()))).find(
      ({ status }) => status === 'rejected',
    );
    if (!failed) return;
    // Nest closes nothing of an app that did not start.
    await Promise.all(engines.map((engine) => engine.giveUp()));
    throw (failed as PromiseRejectedResult).reason;
  }

  async onModuleDestroy(): Promise<void> {
    this.closing = true;
    this.stopWatching?.();
    await Promise.all([...this.engines].map((engine) => engine.stop()));
  }

  /** Says once where a signal would end the process in the midst of its jobs. */
  runsJobs(): void {
    if (this.stopWatching || this.closing || !isMainThread) return;
    this.stopWatching = runAfter(ENABLED_WITHIN_MS, warnOfSignals, {
      keepsAlive: false,
    });
  }
}

function warnOfSignals(): void {
  // A listener of the app's own is as good; test runners end their apps themselves.
  if (process.listenerCount('SIGTERM') > 0 || process.env.NODE_ENV === 'test') return;
  new Logger('Bildad').warn(
    'nothing listens to SIGTERM, which ends this process in the midst of its jobs: call app.enableShutdownHooks()',
  );
}

@Module({ providers: [AppEdge], exports: [AppEdge] })
export class AppEdgeModule {}
