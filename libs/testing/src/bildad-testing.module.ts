import {
  BildadConfigError,
  refuseUnknown,
  type BildadModuleOptions,
  type EngineExtension,
  BILDAD_EXTENSION,
} from 'nestjs-bildad';
import { AsyncLocalStorage } from 'node:async_hooks';
import type { DataSource } from 'typeorm';
import type { MadeEngine } from './engines.js';
import { SwitchedPools } from './transaction/switched-pools.js';
import { Module, type DynamicModule } from '@nestjs/common';
import { BildadTesting } from './bildad-testing.js';

/**
 * When jobs run. `'manual'`: when the test calls `drain` or `runNext`. `'inline'`: before the call that enqueued them, or
 * the commit of its transaction, resolves. `'real'`: as in production, with short intervals.
 */
export type TestingMode = 'manual' | 'inline' | 'real';

export interface BildadTestingOptions {
  /** Default `'manual'`. */
  mode?: TestingMode;
  /** In the mode `'inline'`, an enqueue throws a JobRunFailedError when its job fails. Default `false`: the job fails as in production. */
  throwFailures?: boolean;
  /** Options that override those of every engine and of the mode. */
  options?: BildadModuleOptions;
}

export interface TestingSettings {
  mode: TestingMode;
  throwFailures: boolean;
  options: BildadModuleOptions;
}

const MODES: readonly unknown[] = ['manual', 'inline', 'real'];
const WHERE = 'BildadTestingModule';
const NAMES = ['mode', 'throwFailures', 'options'];

/** @throws BildadConfigError */
export function readTestingOptions(given: BildadTestingOptions = {}): TestingSettings {
  refuseUnknown(given, NAMES, '', WHERE);
  const { mode = 'manual', throwFailures = false, options = {} } = given;
  if (!MODES.includes(mode))
    throw new BildadConfigError('mode', "must be 'manual', 'inline' or 'real'", {
      got: mode,
      where: WHERE,
    });
  if (typeof throwFailures !== 'boolean')
    throw new BildadConfigError('throwFailures', 'must be true or false', {
      got: throwFailures,
      where: WHERE,
    });
  if (throwFailures && mode !== 'inline')
    throw new BildadConfigError('throwFailures', "needs the mode 'inline'", {
      got: mode,
      where: WHERE,
    });
  return { mode, throwFailures, options };
}

/** A short limit for jobs that hang at the end of a test. */
const SHUTDOWN = { drainTimeout: 500, killGracePeriod: 250 } as const;

/** An engine's options in a test. */
export function optionsInTest(
  given: BildadModuleOptions,
  { mode, options }: TestingSettings,
): BildadModuleOptions {
  return {
    ...given,
    // If the engine only enqueues or starts later, the test runs its jobs.
    role: 'all',
    autoStart: true,
    shutdown: SHUTDOWN,
    // A process at a breakpoint does not hang.
    maxEventLoopBlock: false,
    ...(mode === 'real'
      ? { tickInterval: 50 }
      : // One job after the other, and only when the test requests it.
        { tickInterval: false, notify: false, batchSize: 1 }),
    ...options,
  };
}

/** Sets the options of the app's engines for the test, and collects the engines. */
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

/**
 * Import it beside the module under test: its engines then run jobs when the test requests it. The app's own `BildadModule`s stay
 * unchanged.
 *
 * ```ts
 * Test.createTestingModule({ imports: [AppModule, BildadTestingModule.forRoot()] })
 * ```
 */
@Module({})
export class BildadTestingModule {
  /** @throws BildadConfigError */
  static forRoot(options?: BildadTestingOptions): DynamicModule {
    const settings = readTestingOptions(options);
    return {
      module: BildadTestingModule,
      global: true,
      providers: [
        {
          provide: TestExtension,
          useFactory: () => new TestExtension(settings),
        },
        { provide: BILDAD_EXTENSION, useExisting: TestExtension },
        BildadTesting,
      ],
      exports: [BILDAD_EXTENSION, BildadTesting],
    };
  }
}

/** As much of an app, or of a TestingModule, as is closed. */
interface Closable {
  get(token: typeof BildadTesting, options: { strict: false }): BildadTesting;
  close(): Promise<void>;
}

/**
 * Closes an app under test, for an `afterEach` or `afterAll`. @throws TestLeakError when a job was still running, a run
 * was left RUNNING or a transaction was open; the app is closed anyway
 */
export async function closeTesting(app: Closable | undefined): Promise<void> {
  // The boot has failed: its error matters, not this one.
  if (!app) return;
  const testing = app.get(BildadTesting, { strict: false });
  let left: unknown;
  await testing.expectNoLeaks().catch((error: unknown) => (left = error));
  await app.close();
  if (left) throw left;
}
