import { AsyncLocalStorage } from 'node:async_hooks';
import type { BildadModuleOptions, EngineExtension } from 'nestjs-bildad';
import type { DataSource } from 'typeorm';
import type { MadeEngine } from './engines.js';
import { optionsInTest, type TestingSettings } from './options.js';
import { SwitchedPools } from './transaction/switched-pools.js';

/** Makes the engines of an app as its test wants them, and remembers them. */
export class TestExtension implements EngineExtension {
  readonly engines: MadeEngine[] = [];
  private readonly inHandler = new AsyncLocalStorage<true>();

  constructor(readonly settings: TestingSettings) {}

  /** Whether the call comes from a job that runs here. */
  get isInHandler(): boolean {
    return this.inHandler.getStore() === true;
  }

  outside<T>(work: () => T): T {
    return this.inHandler.exit(work);
  }

  options(
    given: BildadModuleOptions,
    { dataSource }: { dataSource: DataSource },
  ): BildadModuleOptions {
    SwitchedPools.of(dataSource);
    return optionsInTest(given, this.settings);
  }

  made(engine: MadeEngine): void {
    this.engines.push(engine);
  }

  aroundRun(_run: unknown, next: () => Promise<void>): Promise<void> {
    return this.inHandler.run(true, next);
  }
}
