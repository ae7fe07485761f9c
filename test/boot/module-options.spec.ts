import { BildadConfigError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { bootError } from '../support/host.js';

// A wrong option keeps the app from starting, and the message names it, what was expected, and what was given: of what
// may be a secret under a misspelt name, its kind.

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

const hour = 3_600_000;

it.each<[options: object, field: string, expected: RegExp, got: string]>([
  [{ name: '' }, 'name', /text of 1 to 200 characters/, "''"],
  [{ name: 7 }, 'name', /text/, '7'],
  [{ name: 'a\0b' }, 'name', /without NUL/, "'a\\x00b'"],
  [{ name: 'x'.repeat(201) }, 'name', /1 to 200/, 'xxx'],
  [{ role: 'boss' }, 'role', /'all', 'producer', 'worker'/, "'boss'"],
  [{ role: true }, 'role', /'all'/, 'true'],
  [{ concurrency: 0 }, 'concurrency', /whole number from 1/, '0'],
  [{ concurrency: 2.5 }, 'concurrency', /whole number/, '2.5'],
  [{ concurrency: NaN }, 'concurrency', /whole number/, 'NaN'],
  [{ concurrency: Infinity }, 'concurrency', /whole number/, 'Infinity'],
  [{ concurrency: '10' }, 'concurrency', /whole number/, "'10'"],
  [{ tickInterval: 'soon' }, 'tickInterval', /duration/, "'soon'"],
  [{ tickInterval: 0 }, 'tickInterval', /at least 10 ms/, '0'],
  [{ tickInterval: true }, 'tickInterval', /duration/, 'true'],
  [{ tickInterval: -5 }, 'tickInterval', /duration/, '-5'],
  [{ tickInterval: 101 * 365 * 24 * hour }, 'tickInterval', /duration/, '3'],
  [{ batchSize: 0 }, 'batchSize', /whole number from 1/, '0'],
  [{ batchSize: '5' }, 'batchSize', /whole number/, "'5'"],
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
    /no such option; known are type, delay/,
    "'number'",
  ],
  [{ backoff: { type: 'exponential', jitter: 2 } }, 'backoff.jitter', /number from 0 to 1/, '2'],
  [{ backoff: { type: 'exponential', maxDelay: 'x' } }, 'backoff.maxDelay', /duration/, "'x'"],
  [{ globalEnhancers: 'no' }, 'globalEnhancers', /true or false/, "'no'"],
  [{ carry: [] }, 'carry', /carriers by name/, '[]'],
  [{ carry: { '': {} } }, 'carry: a name', /text of 1 to 50/, "''"],
  [{ carry: { trace: {} } }, 'carry.trace', /another name/, "'trace'"],
  [{ carry: { a: null } }, 'carry.a.capture', /a function/, 'undefined'],
  [{ carry: { a: {} } }, 'carry.a.capture', /a function/, 'undefined'],
  [{ carry: { a: { capture() {}, restore: 1 } } }, 'carry.a.restore', /a function/, '1'],
  [{ maxContextBytes: 1 }, 'maxContextBytes', /whole number from 2/, '1'],
  [{ maxContextBytes: 1e9 }, 'maxContextBytes', /whole number/, '1000000000'],
  [{ maxContextBytes: '1MB' }, 'maxContextBytes', /whole number/, "'1MB'"],
  [{ queryTimeout: 99 }, 'queryTimeout', /duration of at least 100 /, '99'],
  [{ queryTimeout: '2d' }, 'queryTimeout', /at most 86400000 ms/, "'2d'"],
  [{ queryTimeout: false }, 'queryTimeout', /duration/, 'false'],
  [{ shutdown: { drainTimeout: 'never' } }, 'shutdown.drainTimeout', /duration/, "'never'"],
  [{ shutdown: { killGracePeriod: -1 } }, 'shutdown.killGracePeriod', /duration/, '-1'],
  [{ shutdown: { drain: 5 } }, 'shutdown.drain', /no such option/, "'number'"],
  [{ shutdown: null }, 'shutdown', /object/, 'null'],
  [{ shutdown: '30s' }, 'shutdown', /object/, "'string'"],
  [{ name: null }, 'name', /text/, 'null'],
  [{ concurrency: null }, 'concurrency', /whole number/, 'null'],
  [{ concurency: 5 }, 'concurency', /no such option; known are name, /, "'number'"],
  [{ pollInterval: '1s' }, 'pollInterval', /no such option/, "'string'"],
  // The extras.
  [{ schema: 'Bildad' }, 'schema', /lower case/, "'Bildad'"],
  [{ schema: 'pg_jobs' }, 'schema', /not starting with pg_/, "'pg_jobs'"],
  [{ schema: 'a'.repeat(42) }, 'schema', /at most 41/, "'aaa"],
  [{ schema: 'x"; DROP TABLE y' }, 'schema', /lower case/, 'DROP TABLE'],
  [{ schema: 5 }, 'schema', /PostgreSQL schema name/, '5'],
  [{ schema: null }, 'schema', /PostgreSQL schema name/, 'null'],
  [{ isGlobal: 'no' }, 'isGlobal', /true or false/, "'no'"],
  [{ dataSource: '' }, 'dataSource', /text/, "''"],
  [{ dataSource: {} }, 'dataSource', /text/, '{}'],
])('%o is refused', async (options, field, expected, got) => {
  const error = await bootError({ url: database.url, bildad: options });
  expect(error).toBeInstanceOf(BildadConfigError);
  const { field: named, expected: wanted } = error as BildadConfigError;
  expect(named).toBe(field);
  expect(wanted).toMatch(expected);
  expect(error.message).toContain(`${field}: expected ${wanted}, got `);
  expect(error.message.split(', got ').at(-1)).toContain(got);
});

it('leaves the database untouched', async () => {
  expect(await database.sql("SELECT nspname FROM pg_namespace WHERE nspname = 'bildad'")).toEqual(
    [],
  );
});
