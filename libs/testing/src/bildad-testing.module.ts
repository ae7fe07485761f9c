import { Module, type DynamicModule } from '@nestjs/common';
import { BILDAD_EXTENSION } from 'nestjs-bildad';
import { BildadTesting } from './bildad-testing.js';
import { TestExtension } from './extension.js';
import { readTestingOptions, type BildadTestingOptions } from './options.js';

/**
 * Beside the module under test: its engines then run jobs when the test wants them to. The app's own `BildadModule`s stay
 * as they are, however many there are and in whatever form.
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
 * Closes an app under test, for an `afterEach` or `afterAll`. @throws TestLeakError where a job was still running, a run
 * was left RUNNING or a transaction open: the app is closed all the same
 */
export async function closeTesting(app: Closable | undefined): Promise<void> {
  // The boot has failed: what it said is to be read, not this.
  if (!app) return;
  const testing = app.get(BildadTesting, { strict: false });
  let left: unknown;
  await testing.expectNoLeaks().catch((error: unknown) => (left = error));
  await app.close();
  if (left) throw left;
}
