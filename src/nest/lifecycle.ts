import {
  Inject,
  Injectable,
  type BeforeApplicationShutdown,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type OnModuleDestroy,
  type OnModuleInit,
} from '@nestjs/common';
import { BildadConfigError } from '../model/errors.js';
import { ensureConfig, readConfig } from '../store/config.store.js';
import { explained } from '../store/database-error.js';
import { nameExportedEntities } from '../store/entities/exported.js';
import { checkVersion, migrate } from '../store/migrate.js';
import { declareTemplates } from '../store/template.store.js';
import { HandlerExplorer } from './explorer.js';
import { attachFeatures, type Detach } from './features.js';
import { insideHost } from './host/inside.js';
import { checkIsolation, startHosts } from './host/start.js';
import { logEvents } from './log-lines.js';
import { BILDAD_RUNTIME, type BildadRuntime } from './runtime.js';

/** What the last statements may take at shutdown. */
const CLOSE_MS = 2_000;

/**
 * Boot: schema, config row, handlers and their templates, before anything of the app's own bootstrap
 * runs; then the engine. An error in any of it keeps the app from starting. Shutdown: claim nothing
 * more as soon as modules are destroyed, drain before TypeORM closes its connections.
 */
@Injectable()
export class BildadLifecycle
  implements
    OnModuleInit,
    OnApplicationBootstrap,
    OnModuleDestroy,
    BeforeApplicationShutdown,
    OnApplicationShutdown
{
  private ready = false;
  private closeHosts = async (): Promise<void> => {};
  private detach: Detach = () => {};

  constructor(
    @Inject(BILDAD_RUNTIME) private readonly bildad: BildadRuntime,
    private readonly explorer: HandlerExplorer,
  ) {}

  async onModuleInit(): Promise<void> {
    const { store, settings } = this.bildad;
    if (!insideHost()) logEvents(this.bildad.events, settings);
    // Wrong handlers are found before the database is touched.
    const found = this.explorer.find(settings.name);
    for (const { handler } of found) this.bildad.handlers.register(handler);
    this.checkKeys();
    this.checkDataSource();
    this.detach = await attachFeatures(this.bildad);
    if (insideHost()) {
      // The app has seen to the tables; what is committed here others are to hear of.
      this.bildad.wakeUps.start();
      return;
    }
    checkIsolation(this.bildad);
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
      // Nest closes nothing of an app that did not start.
      await store.db.close(0);
      throw explained(error, 'Bildad cannot start', store.tables.schema);
    }
    this.ready = true;
  }

  async onApplicationBootstrap(): Promise<void> {
    if (!this.ready) return;
    try {
      this.closeHosts = await startHosts(this.bildad);
    } catch (error) {
      await this.bildad.store.db.close(0);
      throw error;
    }
    this.bildad.strays.listen();
    await this.bildad.engine.start();
  }

  onModuleDestroy(): void {
    this.bildad.isolated.drain();
    this.bildad.engine.close();
  }

  async beforeApplicationShutdown(): Promise<void> {
    if (this.ready) await this.bildad.engine.stop();
    this.bildad.isolated.leave();
    await this.closeHosts();
  }

  /** Not before: what else is being shut down may enqueue to the last. */
  async onApplicationShutdown(): Promise<void> {
    await this.detach();
    await this.bildad.store.db.close(CLOSE_MS);
  }

  /** @throws JobEncryptionKeyError */
  private checkKeys(): void {
    const { handlers, keyring } = this.bildad;
    for (const code of handlers.codes()) {
      const { traits, className } = handlers.get(code)!;
      if (traits.encrypt)
        keyring.check(`@BildadJob of ${className} with encrypt: true`);
    }
  }

  private checkDataSource(): void {
    const { dataSource } = this.bildad.store;
    const { entities, store } = this.bildad;
    if (dataSource.options.type !== 'postgres')
      throw new BildadConfigError(
        'dataSource',
        "a TypeORM DataSource of type 'postgres'",
        dataSource.options.type,
      );
    if (!dataSource.isInitialized)
      throw new BildadConfigError(
        'dataSource',
        'an initialized DataSource (drop manualInitialization, or initialize it before the app starts)',
        'one that is not initialized',
      );
    if (!dataSource.hasMetadata(entities.JobRun))
      throw new BildadConfigError(
        'dataSource',
        store.tables.schema === 'bildad'
          ? 'autoLoadEntities: true, or BILDAD_ENTITIES among its entities'
          : `autoLoadEntities: true, or Object.values(bildadEntities('${store.tables.schema}')) among its entities`,
        'a DataSource without the Bildad entities',
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
