import { Inject, Injectable } from '@nestjs/common';
import { BildadConfigError } from '../../job/errors.js';
import { OutermostHooks, type HookedEngine } from './outermost-hooks.js';
import { isInHost } from '../isolation-host/host-environment.js';
import { startHosts } from '../isolation-host/start-hosts.js';
import { JobEventListeners } from '../listeners/listeners.js';
import { BILDAD_RUNTIME, type BildadRuntime } from './runtime.js';

/** Starts the engine with its app or by hand, and stops it. */
@Injectable()
export class EngineStarter implements HookedEngine {
  /** The tables are ready and the handlers are known. */
  isReady = false;
  /** Closes the features and connections of the module. Set by `BildadLifecycle`. */
  closeModule = async (): Promise<void> => {};
  private starting: Promise<void> | undefined;
  private stopping: Promise<void> | undefined;
  private closeHosts = async (): Promise<void> => {};

  constructor(
    @Inject(BILDAD_RUNTIME) private readonly bildad: BildadRuntime,
    private readonly hooks: OutermostHooks,
    private readonly listeners: JobEventListeners,
  ) {
    hooks.add(this);
  }

  async startWithApp(): Promise<void> {
    if (this.isReady && this.bildad.settings.autoStart) await this.start();
  }

  /**
   * Idempotent; may be called again after an error.
   * @throws BildadConfigError; the error of the app's module in a host
   */
  start(): Promise<void> {
    this.starting ??= this.startUp().catch((error: unknown) => {
      this.starting = undefined;
      throw error;
    });
    return this.starting;
  }

  stop(): Promise<void> {
    this.stopping ??= this.shutDown();
    return this.stopping;
  }

  async abandonStart(): Promise<void> {
    await this.stop();
    await this.closeModule();
  }

  private async startUp(): Promise<void> {
    const { engine, node, clusterEvents, rejections, settings } = this.bildad;
    // The app's hooks run in hosts, too.
    if (isInHost()) return;
    if (!this.isReady)
      throw new BildadConfigError(
        'start()',
        'was called too early: call it when the app is initialized, in onApplicationBootstrap or later',
      );
    if (node.closing) return;
    this.closeHosts = await startHosts(this.bildad);
    rejections.listen();
    await engine.start();
    clusterEvents.start();
    if (settings.role !== 'producer') this.hooks.warnWithoutSignalHandler();
  }

  private async shutDown(): Promise<void> {
    const { engine, isolated, settings } = this.bildad;
    this.listeners.startDrain(settings.shutdown.drainTimeout);
    isolated.drain();
    engine.close();
    await this.starting?.catch(() => undefined);
    if (this.isReady) await engine.stop();
    await this.listeners.drain();
    isolated.stopCancelling();
    await this.closeHosts();
  }
}
