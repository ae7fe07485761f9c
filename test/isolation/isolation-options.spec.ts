import { describe, expect, it } from 'vitest';
import { BildadConfigError, type IsolationOptions } from 'nestjs-bildad';
import { actors } from '../fixtures/isolation-app.js';
import { bootApp } from '../support/app.js';
import { bootIsolated, ISOLATED_MODULE } from '../support/isolation-app.js';

// Invalid isolation options fail the start of the app.

it('isolated handlers require the isolation option', async () => {
  await expect(bootApp({ providers: actors })).rejects.toThrow(
    'isolation must be { module, export }: @BildadJob of IsolatedActor has the isolation',
  );
});

it('the number of hosts is limited to 1000 for a higher concurrency', async () => {
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
    'a missing module',
    { module: new URL('./nowhere.js', ISOLATED_MODULE) },
    'isolation.module must be the URL of a module that can be imported, got ',
  ],
  ['a missing export', { export: 'Nothing' }, 'isolation.export must be the name of'],
  [
    'a module without this engine',
    { export: 'OtherModule' },
    'isolation.module must import BildadModule with the engine "default" in the schema "bildad"',
  ],
  [
    'a module without one handler',
    { export: 'LackingModule' },
    'isolation.module must export a module LackingModule with the handlers of',
  ],
  ['a relative path as module', { module: './app.module.js' }, 'isolation.module must be the URL'],
  ['0 threads', { threads: 0 }, 'isolation.threads must be an integer from 1 to 1000, got 0'],
  [
    'too little memory for a process',
    { memoryLimit: 64 },
    'isolation.memoryLimit must be at least 128 (MiB) for a process, got 64',
  ],
  [
    'a memoryLimit that is an object',
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
