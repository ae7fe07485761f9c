import { Inject, Injectable } from '@nestjs/common';
import { BildadConfigError } from '../../job/errors.js';
import { AppEdge, type AppEngine } from './hook-order.js';
import { isInHost } from '../isolation-host/host-environment.js';
import { startHosts } from '../isolation-host/start-hosts.js';
import { JobEventListeners } from '../listeners/listeners.js';
import { BILDAD_RUNTIME, type BildadRuntime } from './runtime.js';

/** Starts the engine, with its app or when it is told to, and stops it. */
@Injectable()
export class EngineSwitch implements AppEngine {
  /** The tables have been looked at, and the handlers are known. */
  ready = false;
  /** Ends what the module holds beside the engine. */
  leave = async (): Promise<void> => {};
  private starting: Promise<void> | undefined;
  private stopping: Promise<void> | undefined;
  private closeHosts = async (): Promise<void> => {};

  constructor(
    @Inject(BILDAD_RUNTIME) private readonly bildad: BildadRuntime,
    private readonly edge: AppEdge,
    private readonly listeners: JobEventListeners,
  ) {
    edge.add(this);
  }

  async boot(): Promise<void> {
    if (this.ready && this.bildad.settings.autoStart) await this.start();
  }

  /** Idempotent, unless it failed. @throws BildadConfigError, what the module throws when a host of jobs is booted */
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

  async giveUp(): Promise<void> {
    await this.stop();
    await this.leave();
  }

  private async startUp(): Promise<void> {
    const { engine, node, clusterEvents, strays, settings } = this.bildad;
    // Hooks of the app's run there as well.
    if (isInHost()) return;
    if (!this.ready)
      throw new BildadConfigError(
        'start()',
        'was called too early: call it when the app is initialized, in onApplicationBootstrap or later',
      );
    if (node.closing) return;
    this.closeHosts = await startHosts(this.bildad);
    strays.listen();
    await engine.start();
    clusterEvents.start();
    if (settings.role !== 'producer') this.edge.runsJobs();
  }

  private async shutDown(): Promise<void> {
    const { engine, isolated, settings } = this.bildad;
    this.listeners.startDrain(settings.shutdown.drainTimeout);
    isolated.drain();
    engine.close();
    await this.starting?.catch(() => undefined);
    if (this.ready) await engine.stop();
    await this.listeners.drain();
    isolated.leave();
    await this.closeHosts();
  }
}
