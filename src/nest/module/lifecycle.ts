import { Inject, Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { FOR_ROOT } from '../../options/settings.js';
import { BildadConfigError } from '../../job/errors.js';
import { ensureConfig, readConfig } from '../../database/job-config.sql.js';
import { explainError } from '../../database/database-error.js';
import { nameExportedEntities } from '../../database/entities/index.js';
import { checkVersion, migrate } from '../../database/migrate.js';
import { declareTemplates } from '../../lifecycle/templates/template.sql.js';
import { EngineStarter } from './engine-starter.js';
import { HandlerExplorer } from '../handlers/explorer.js';
import { startFeatures, type StopFeature } from './features.js';
import { isInHost } from '../isolation-host/host-environment.js';
import { checkIsolation } from '../isolation-host/start-hosts.js';
import { JobEventListeners } from '../listeners/listeners.js';
import { logEvents } from '../logging/log-lines.js';
import { BILDAD_RUNTIME, type BildadRuntime } from './runtime.js';

/** Time for the last statements at shutdown. */
const CLOSE_MS = 2_000;

/**
 * Boot, in the module's `onModuleInit`: handlers, schema, configuration row and templates. The engine itself starts last
 * (`OutermostHooks`). Any error stops the app's start. Shutdown: the connections close in the last hook, because other
 * modules may enqueue until then.
 */
@Injectable()
export class BildadLifecycle implements OnModuleInit, OnApplicationShutdown {
  private stopFeatures: StopFeature = () => {};
  private initialized: Promise<void> | undefined;

  constructor(
    @Inject(BILDAD_RUNTIME) private readonly bildad: BildadRuntime,
    private readonly explorer: HandlerExplorer,
    private readonly engineStarter: EngineStarter,
    private readonly listeners: JobEventListeners,
  ) {}

  /** Runs once, although a hybrid app may call all hooks twice. */
  onModuleInit(): Promise<void> {
    this.initialized ??= this.initialize();
    return this.initialized;
  }

  private async initialize(): Promise<void> {
    const { store, settings } = this.bildad;
    if (!isInHost()) logEvents(this.bildad.events, settings);
    // Wrong handlers are reported before the database is used.
    const found = this.explorer.find(settings);
    for (const { handler } of found) this.bildad.handlers.register(handler);
    // Listeners run in the node, not in its hosts.
    if (!isInHost()) this.listeners.attach(this.bildad);
    this.checkKeys();
    this.checkDataSource();
    checkIsolation(this.bildad);
    this.stopFeatures = await startFeatures(this.bildad);
    if (isInHost()) {
      // The node has migrated already. Commits of a host wake other nodes, too.
      this.bildad.wakeUps.start();
      return;
    }
    this.bildad.hostPools.watch();
    nameExportedEntities(store.dataSource);
    try {
      if (settings.migrate) await migrate(store.dataSource, store.tables);
      else await checkVersion(store.dataSource, store.tables);
      await this.readConfig();
      await declareTemplates(
        store.db,
        store.tables,
        found.map(({ declaration }) => declaration),
      );
    } catch (error) {
      // Nest closes nothing when an app fails to start.
      await this.close(0);
      throw explainError(error, 'Bildad cannot start', store.tables.schema);
    }
    // Hooks of other modules may enqueue, which must wake running nodes.
    this.bildad.wakeUps.start();
    this.engineStarter.isReady = true;
    this.engineStarter.closeModule = () => this.close(0);
  }

  /** In the last hook, because other modules may enqueue while they shut down. */
  async onApplicationShutdown(): Promise<void> {
    await this.close(CLOSE_MS);
  }

  private async close(withinMs: number): Promise<void> {
    const { stopFeatures } = this;
    // close() may be called twice.
    this.stopFeatures = () => {};
    try {
      await stopFeatures();
    } finally {
      await this.bildad.store.db.close(withinMs);
    }
  }

  /** @throws JobEncryptionKeyError */
  private checkKeys(): void {
    const { handlers, keyring } = this.bildad;
    for (const code of handlers.codes()) {
      const { traits, className } = handlers.get(code)!;
      if (traits.encrypt) keyring.check(`@BildadJob of ${className} with encrypt: true`);
    }
  }

  private checkDataSource(): void {
    const { dataSource } = this.bildad.store;
    const { entities, store } = this.bildad;
    if (dataSource.options.type !== 'postgres')
      throw new BildadConfigError('dataSource', "must be a TypeORM DataSource of type 'postgres'", {
        got: dataSource.options.type,
        where: FOR_ROOT,
      });
    if (!dataSource.isInitialized)
      throw new BildadConfigError(
        'dataSource',
        'must be initialized: drop manualInitialization, or initialize it before the app starts',
        { where: FOR_ROOT },
      );
    if (!dataSource.hasMetadata(entities.JobRun))
      throw new BildadConfigError(
        'dataSource',
        `does not know the Bildad entities: set autoLoadEntities: true, or add ${store.tables.schema === 'bildad' ? 'BILDAD_ENTITIES' : `Object.values(bildadEntities('${store.tables.schema}'))`} to its entities`,
        { where: FOR_ROOT },
      );
  }

  private async readConfig(): Promise<void> {
    const { store, settings, node } = this.bildad;
    await ensureConfig(store.db, store.tables, settings.name);
    const config = await readConfig(store.db, store.tables, settings.name);
    if (!config) return;
    node.batchSize = config.batchSize;
    node.leaseMs = config.leaseMs;
  }
}
