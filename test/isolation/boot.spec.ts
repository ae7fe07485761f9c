import { describe, expect, it } from 'vitest';
import { BildadConfigError, type IsolationOptions } from 'nestjs-bildad';
import { actors } from '../fixtures/isolated.js';
import { bootApp } from '../support/app.js';
import { bootIsolated, ISOLATED_MODULE } from '../support/isolated.js';

// What is wrong with the hosts is found as the app starts.

it('an isolated handler needs to be told what its hosts boot', async () => {
  await expect(bootApp({ providers: actors })).rejects.toThrow(
    'isolation: expected { module, export } for @BildadJob of IsolatedActor',
  );
});

it('more jobs at once than hosts may be made take as many hosts as there may be', async () => {
  const bildad = await bootIsolated({}, { concurrency: 1_001 });
  const { isolation } = (
    bildad.engine as unknown as {
      bildad: { settings: { isolation: IsolationOptions } };
    }
  ).bildad.settings;
  expect(isolation).toMatchObject({ threads: 1_000, processes: 1_000 });
  await bildad.close();
});

describe.each<[string, Partial<IsolationOptions>, string]>([
  [
    'a module that is not there',
    { module: new URL('./nowhere.js', ISOLATED_MODULE) },
    'isolation.module: expected the URL of a module that can be imported',
  ],
  ['an export that is not there', { export: 'Nothing' }, 'isolation.export: expected the name of'],
  [
    'a module without this engine',
    { export: 'OtherModule' },
    'isolation.module: expected a module that imports BildadModule with the engine "default" in the schema "bildad"',
  ],
  [
    'a module without one of the handlers',
    { export: 'LackingModule' },
    'isolation.module: expected LackingModule of',
  ],
  ['no URL', { module: './app.module.js' }, 'isolation.module: expected the URL'],
  ['no thread', { threads: 0 }, 'isolation.threads: expected a whole number'],
  [
    'too little memory for a process',
    { memoryLimit: 64 },
    'isolation.memoryLimit: expected at least 128 (MiB) for a process',
  ],
  [
    'a limit of nothing',
    { memoryLimit: { threads: 64 } as never },
    'isolation.memoryLimit.threads',
  ],
])('%s', (_name, isolation, message) => {
  it(`is refused: ${message}`, async () => {
    const boot = bootIsolated(isolation);
    await expect(boot).rejects.toThrow(message);
    await expect(boot).rejects.toMatchObject({
      code: new BildadConfigError('', '').code,
    });
  });
});
