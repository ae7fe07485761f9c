import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BildadConfigError } from 'nestjs-bildad';
import { BildadPrometheusModule } from 'nestjs-bildad/prometheus';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { bootError } from '../support/host.js';

// Wrong options are rejected at boot.

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

it.each<[options: object, field: string, problem: RegExp]>([
  [{ telemetry: 'yes' }, 'telemetry', /object/],
  [{ telemetry: null }, 'telemetry', /object/],
  [{ telemetry: { spans: true } }, 'telemetry.spans', /Known options: traces/],
  [{ telemetry: { traces: 1 } }, 'telemetry.traces', /true or false/],
  [{ telemetry: { metrics: 1 } }, 'telemetry.metrics', /true or false/],
  [{ telemetry: { relation: 'x' } }, 'telemetry.relation', /'link', 'parent'/],
  [{ telemetry: { errorMessages: 1 } }, 'telemetry.errorMessages', /true/],
  [{ telemetry: { queueInterval: 'x' } }, 'telemetry.queueInterval', /90s/],
  [{ logFields: 'pino' }, 'logFields', /true or false/],
])('the options %o are rejected', async (options, field, problem) => {
  const error = await bootError({ url: database.url, bildad: options });
  expect(error).toBeInstanceOf(BildadConfigError);
  expect(error).toMatchObject({
    field,
    problem: expect.stringMatching(problem),
  });
});

it.each([
  [{ path: true }, 'path'],
  [{ registry: {} }, 'registry'],
  [{ regsitry: {} }, 'regsitry'],
  ['x', 'options'],
])('BildadPrometheusModule.forRoot(%o) is rejected', (options, field) => {
  expect(() => BildadPrometheusModule.forRoot(options as never)).toThrow(
    expect.objectContaining({ field, name: 'BildadConfigError' }),
  );
});

it('telemetry without the OpenTelemetry package fails with the package to install', async () => {
  const hooks = `export const resolve = (name, context, next) => {
    if (name === '@opentelemetry/api')
      throw Object.assign(new Error('not installed'), { code: 'ERR_MODULE_NOT_FOUND' });
    return next(name, context);
  };`;
  const asUrl = (code: string) => `data:text/javascript,${encodeURIComponent(code)}`;
  const register = `import { register } from 'node:module'; register(${JSON.stringify(asUrl(hooks))});`;
  const boot = `
    import { bootError, bootHost } from './dist/test/support/host.js';
    const url = ${JSON.stringify(database.url)};
    const { field, problem } = await bootError({ url, bildad: { telemetry: true } });
    await (await bootHost({ url })).close();
    console.log(JSON.stringify({ field, problem }));
    process.exit();`;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--import', asUrl(register), '--input-type=module', '-e', boot],
    { cwd: fileURLToPath(new URL('../../', import.meta.url)) },
  );
  expect(JSON.parse(stdout)).toEqual({
    field: 'telemetry',
    problem: expect.stringContaining('npm install @opentelemetry/api'),
  });
});
