import { BildadConfigError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { bootError } from '../support/host.js';

// A wrong option keeps the app from starting. The error names the option, the expected value and
// the given value. The value of a misspelt option may be a secret, so the error does not show it.

let database: TestDatabase;
beforeAll(async () => {
  database = await createEmptyDatabase();
});
afterAll(() => database.drop());

const hour = 3_600_000;

it.each<[options: object, field: string, problem: RegExp, got: string | null]>([
  [{ name: '' }, 'name', /^must be a string of 1 to 200 characters/, "''"],
  [{ name: 7 }, 'name', /string/, '7'],
  [{ name: 'a\0b' }, 'name', /without NUL/, "'a\\x00b'"],
  [{ name: 'x'.repeat(201) }, 'name', /1 to 200/, 'xxx'],
  [{ role: 'boss' }, 'role', /'all', 'producer', 'worker'/, "'boss'"],
  [{ role: true }, 'role', /'all'/, 'true'],
  [{ concurrency: 0 }, 'concurrency', /^must be an integer from 1 to /, '0'],
  [{ concurrency: 2.5 }, 'concurrency', /integer/, '2.5'],
  [{ concurrency: NaN }, 'concurrency', /integer/, 'NaN'],
  [{ concurrency: Infinity }, 'concurrency', /integer/, 'Infinity'],
  [{ concurrency: '10' }, 'concurrency', /integer/, "'10'"],
  [{ tickInterval: 'soon' }, 'tickInterval', /duration/, "'soon'"],
  [{ tickInterval: 0 }, 'tickInterval', /at least 10 ms.*, or false$/, '0'],
  [{ tickInterval: true }, 'tickInterval', /duration/, 'true'],
  [{ tickInterval: -5 }, 'tickInterval', /duration/, '-5'],
  [{ tickInterval: 101 * 365 * 24 * hour }, 'tickInterval', /duration/, '3'],
  [{ batchSize: 0 }, 'batchSize', /^must be an integer from 1 to /, '0'],
  [{ batchSize: '5' }, 'batchSize', /integer/, "'5'"],
  [{ autoStart: 'no' }, 'autoStart', /true or false/, "'no'"],
  [{ migrate: 'yes' }, 'migrate', /true or false/, "'yes'"],
  [{ backoff: 'linear' }, 'backoff', /duration/, "'linear'"],
  [{ backoff: true }, 'backoff', /'none', a duration/, 'true'],
  [{ backoff: null }, 'backoff', /'none', a duration/, 'null'],
  [{ backoff: {} }, 'backoff', /type: 'fixed'/, '{}'],
  [{ backoff: { type: 'fixed' } }, 'backoff.delay', /duration/, 'undefined'],
  [
    { backoff: { type: 'fixed', delay: 5, jitter: 0 } },
    'backoff.jitter',
    /^is not an option\. Known options: type, delay$/,
    null,
  ],
  [{ backoff: { type: 'exponential', jitter: 2 } }, 'backoff.jitter', /number from 0 to 1/, '2'],
  [{ backoff: { type: 'exponential', maxDelay: 'x' } }, 'backoff.maxDelay', /duration/, "'x'"],
  [{ globalEnhancers: 'no' }, 'globalEnhancers', /true or false/, "'no'"],
  [{ carry: [] }, 'carry', /^must be an object of carriers by name, not array$/, null],
  [{ carry: { '': {} } }, 'carry: a name', /string of 1 to 50/, "''"],
  [{ carry: { trace: {} } }, 'carry.trace', /^is reserved: choose another name$/, null],
  [{ carry: { a: null } }, 'carry.a.capture', /a function/, 'undefined'],
  [{ carry: { a: {} } }, 'carry.a.capture', /a function/, 'undefined'],
  [{ carry: { a: { capture() {}, restore: 1 } } }, 'carry.a.restore', /a function/, '1'],
  [{ maxContextBytes: 1 }, 'maxContextBytes', /^must be an integer from 2 to /, '1'],
  [{ maxContextBytes: 1e9 }, 'maxContextBytes', /integer/, '1000000000'],
  [{ maxContextBytes: '1MB' }, 'maxContextBytes', /integer/, "'1MB'"],
  [{ queryTimeout: 99 }, 'queryTimeout', /duration of at least 100 /, '99'],
  [{ queryTimeout: '2d' }, 'queryTimeout', /at most 86400000 ms/, "'2d'"],
  [{ queryTimeout: false }, 'queryTimeout', /duration/, 'false'],
  [{ shutdown: { drainTimeout: 'never' } }, 'shutdown.drainTimeout', /duration/, "'never'"],
  [{ shutdown: { killGracePeriod: -1 } }, 'shutdown.killGracePeriod', /duration/, '-1'],
  [
    { shutdown: { drain: 5 } },
    'shutdown.drain',
    /^is not an option.* Known options: drainTimeout, killGracePeriod$/,
    null,
  ],
  [{ shutdown: null }, 'shutdown', /^must be an object, not null$/, null],
  [{ shutdown: '30s' }, 'shutdown', /^must be an object, not string$/, null],
  [{ name: null }, 'name', /string/, 'null'],
  [{ concurrency: null }, 'concurrency', /integer/, 'null'],
  [
    { concurency: 5 },
    'concurency',
    /^is not an option: did you mean concurrency\? Known options: name, /,
    null,
  ],
  [{ pollInterval: '1s' }, 'pollInterval', /^is not an option.* Known options: name, /, null],
  // The extras.
  [{ schema: 'Bildad' }, 'schema', /lower case/, "'Bildad'"],
  [{ schema: 'pg_jobs' }, 'schema', /not starting with pg_/, "'pg_jobs'"],
  [{ schema: 'a'.repeat(42) }, 'schema', /at most 41/, "'aaa"],
  [{ schema: 'x"; DROP TABLE y' }, 'schema', /lower case/, 'DROP TABLE'],
  [{ schema: 5 }, 'schema', /PostgreSQL schema name/, '5'],
  [{ schema: null }, 'schema', /PostgreSQL schema name/, 'null'],
  [{ isGlobal: 'no' }, 'isGlobal', /true or false/, "'no'"],
  [{ dataSource: '' }, 'dataSource', /string/, "''"],
  [{ dataSource: {} }, 'dataSource', /string/, '{}'],
])('%o fails the boot', async (options, field, problem, got) => {
  const error = await bootError({ url: database.url, bildad: options });
  expect(error).toBeInstanceOf(BildadConfigError);
  const config = error as BildadConfigError;
  expect(config.field).toBe(field);
  expect(config.problem).toMatch(problem);
  const [start, end] = [`${field} ${config.problem}`, ' (BildadModule.forRoot)'];
  if (got === null) return expect(error.message).toBe(start + end);
  expect(error.message.startsWith(`${start}, got `)).toBe(true);
  expect(error.message.endsWith(end)).toBe(true);
  expect(error.message.slice(start.length + ', got '.length, -end.length)).toContain(got);
});

it('a wrong option leaves the database untouched', async () => {
  expect(await database.sql("SELECT nspname FROM pg_namespace WHERE nspname = 'bildad'")).toEqual(
    [],
  );
});
