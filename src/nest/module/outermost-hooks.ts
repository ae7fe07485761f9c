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

/**
 * Less than the distance of any other module: the root's is 1, that of global modules the highest
 * number.
 */
const OUTERMOST = -1;
/** An app may call enableShutdownHooks() some time after it is ready. */
const SIGNAL_CHECK_DELAY_MS = 5_000;

/** An engine that starts and stops with the app. */
export interface HookedEngine {
  /** Starts it, unless it is started by hand. */
  startWithApp(): Promise<void>;
  /** Never rejects. */
  stop(): Promise<void>;
  /** Called when the app fails to start: closes all connections. */
  abandonStart(): Promise<void>;
}

/**
 * Hooks that run last when the app starts and first when it closes: no job is claimed before all
 * other modules are ready, and the services that jobs use stay until the last job ended. All
 * engines of an app share it.
 *
 * Nest orders hooks by the distance of their module from the root. A global module, as BildadModule
 * is, has the highest distance, so its hooks would run in the opposite order. Nest offers no option
 * for that order, so the distance is set.
 */
@Injectable()
export class OutermostHooks implements OnApplicationBootstrap, OnModuleDestroy {
  private readonly engines = new Set<HookedEngine>();
  private stopWatching: (() => void) | undefined;
  private closing = false;

  constructor(modules: ModulesContainer) {
    for (const module of modules.values())
      if (module.metatype === OutermostHooksModule) Reflect.set(module, 'distance', OUTERMOST);
  }

  add(engine: HookedEngine): void {
    this.engines.add(engine);
  }

  /** @throws the error of the first engine that does not start, after all were stopped */
  async onApplicationBootstrap(): Promise<void> {
    const engines = [...this.engines];
    const failed = (await Promise.allSettled(engines.map((engine) => engine.startWithApp()))).find(
      ({ status }) => status === 'rejected',
    );
    if (!failed) return;
    // Nest closes nothing when an app fails to start.
    await Promise.all(engines.map((engine) => engine.abandonStart()));
    throw (failed as PromiseRejectedResult).reason;
  }

  async onModuleDestroy(): Promise<void> {
    this.closing = true;
    this.stopWatching?.();
    await Promise.all([...this.engines].map((engine) => engine.stop()));
  }

  /** Warns once when SIGTERM would end the process while jobs run. */
  warnWithoutSignalHandler(): void {
    if (this.stopWatching || this.closing || !isMainThread) return;
    this.stopWatching = runAfter(SIGNAL_CHECK_DELAY_MS, warnOfSignals, {
      keepsAlive: false,
    });
  }
}

function warnOfSignals(): void {
  // The app may have its own listener. Test runners close their apps themselves.
  if (process.listenerCount('SIGTERM') > 0 || process.env.NODE_ENV === 'test') return;
  new Logger('Bildad').warn(
    'no listener for SIGTERM, which would end this process while jobs run: call app.enableShutdownHooks()',
  );
}

@Module({ providers: [OutermostHooks], exports: [OutermostHooks] })
export class OutermostHooksModule {}
