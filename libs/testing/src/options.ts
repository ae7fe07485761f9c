import { BildadConfigError, refuseUnknown, type BildadModuleOptions } from 'nestjs-bildad';

/**
 * When jobs run. `'manual'`: when the test says so (`drain`, `runNext`). `'inline'`: before the call that enqueued them, or
 * the commit of its transaction, resolves. `'real'`: as in production, with short intervals.
 */
export type TestingMode = 'manual' | 'inline' | 'real';

export interface BildadTestingOptions {
  /** Default `'manual'`. */
  mode?: TestingMode;
  /** Inline, what enqueues throws a JobRunFailedError where the job it caused has failed. Default `false`: it fails as in production. */
  throwFailures?: boolean;
  /** Over the options of every engine, and over those that the mode sets. */
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

/** What hangs at the end of a test is not waited for for long. */
const SHUTDOWN = { drainTimeout: 500, killGracePeriod: 250 } as const;

/** An engine's options in a test. */
export function optionsInTest(
  given: BildadModuleOptions,
  { mode, options }: TestingSettings,
): BildadModuleOptions {
  return {
    ...given,
    // Of one that only enqueues, or starts later, the jobs are the test's to run.
    role: 'all',
    autoStart: true,
    shutdown: SHUTDOWN,
    // Whoever stands at a breakpoint has not hung.
    maxEventLoopBlock: false,
    ...(mode === 'real'
      ? { tickInterval: 50 }
      : // One after the other, and none that was not asked for.
        { tickInterval: false, notify: false, batchSize: 1 }),
    ...options,
  };
}
