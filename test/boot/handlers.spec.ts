import {
  BildadConfigError,
  BildadJob,
  InvalidJobSchemaError,
  type BildadJobOptions,
} from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { bootError, bootHost } from '../support/host.js';

// A bootErrorOf handler class keeps the app from starting. The engine does not touch the database, and
// the error names the class.

let database: TestDatabase;
beforeAll(async () => {
  database = await createEmptyDatabase();
});
afterAll(async () => {
  expect(await database.sql("SELECT to_regclass('bildad.job_templates') AS made")).toEqual([
    { made: null },
  ]);
  await database.drop();
});

const bootErrorOf = (...providers: (new () => object)[]) =>
  bootError({ url: database.url, providers });

/** A handler class with these options, of any type. */
function handler(options: object): new () => object {
  @BildadJob(options as BildadJobOptions)
  class WrongJob {
    runJob() {}
  }
  return WrongJob;
}

describe('codes', () => {
  it('the error names both classes of a duplicate code', async () => {
    @BildadJob({ code: 'TWICE' })
    class FirstJob {
      runJob() {}
    }
    @BildadJob({ code: 'TWICE' })
    class SecondJob {
      runJob() {}
    }
    const error = await bootErrorOf(FirstJob, SecondJob);
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toMatch(/FirstJob/);
    expect(error.message).toMatch(/SecondJob/);
    expect(error.message).toMatch(/"TWICE"/);
  });

  it('two engines can have a class each for the same code', async () => {
    @BildadJob({ code: 'TWICE', engine: 'default' })
    class MineJob {
      runJob() {}
    }
    @BildadJob({ code: 'TWICE', engine: 'another' })
    class OthersJob {
      runJob() {}
    }
    const own = await createEmptyDatabase();
    const app = await bootHost({
      url: own.url,
      providers: [MineJob, OthersJob],
    });
    expect(await own.sql('SELECT job_module_name FROM bildad.job_templates')).toEqual([
      { job_module_name: 'MineJob' },
    ]);
    await app.close();
    await own.drop();
  });
});

describe('the class', () => {
  it('the error names a class without runJob', async () => {
    @BildadJob({ code: 'IDLE' })
    class IdleJob {
      run() {}
    }
    const error = await bootErrorOf(IdleJob);
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toMatch(/IdleJob.*runJob\(context, job\)/);
  });

  it('a class without runJob is found when a factory creates it', async () => {
    @BildadJob({ code: 'IDLE' })
    class MadeIdleJob {}
    const error = await bootError({
      url: database.url,
      providers: [{ provide: 'MADE', useFactory: () => new MadeIdleJob() }],
    });
    expect(error.message).toMatch(/MadeIdleJob.*runJob/);
  });
});

describe('contexts', () => {
  it('the error names a context class without class-validator decorators and its handler', async () => {
    class PlainContext {
      to!: string;
    }
    const error = await bootErrorOf(handler({ code: 'X', context: PlainContext }));
    expect(error).toBeInstanceOf(InvalidJobSchemaError);
    expect(error.message).toMatch(/WrongJob.*PlainContext.*class-validator/);
  });

  it.each<[what: string, context: object, problem: RegExp]>([
    ['an unknown type', { type: 'strnig' }, /type/],
    ['a type that is not a string', { type: 5 }, /type/],
    ['properties that are an array', { properties: [] }, /properties/],
    ['required that is a string', { required: 'to' }, /required/],
    ['a pattern that does not compile', { pattern: '(' }, /pattern|regular/i],
    ['a dangling reference', { $ref: '#/$defs/none' }, /none/],
    ['an unknown dialect', { $schema: 'http://x/none#' }, /schema/],
    ['a negative length', { minLength: -1 }, /minLength/],
    ['$async', { $async: true, type: 'object' }, /async/],
    ['an array as the schema', [{ type: 'object' }], /object/],
  ])('a JSON Schema with %s fails the boot', async (_what, context, problem) => {
    const error = await bootErrorOf(handler({ code: 'X', context }));
    expect(error).toBeInstanceOf(InvalidJobSchemaError);
    expect((error as InvalidJobSchemaError).problem).toMatch(problem);
    expect(error.message).toMatch(/^@BildadJob of WrongJob: invalid context/);
  });
});

describe('@BildadJob', () => {
  it.each<[options: object, option: string, problem: RegExp]>([
    [{}, 'code', /^must be a string of 1 to 200/],
    [{ code: '' }, 'code', /string/],
    [{ code: 5 }, 'code', /string/],
    [{ code: 'x'.repeat(201) }, 'code', /string/],
    [{ code: 'a\0' }, 'code', /without NUL/],
    [{ code: 'X', name: '' }, 'name', /string/],
    [{ code: 'X', displayOrder: 1.5 }, 'displayOrder', /integer/],
    [{ code: 'X', context: 'SendEmail' }, 'context', /class or a JSON Schema/],
    [{ code: 'X', context: true }, 'context', /class or a JSON Schema/],
    [{ code: 'X', timeout: 0 }, 'timeout', /at least 1 ms/],
    [{ code: 'X', timeout: 'long' }, 'timeout', /duration/],
    [{ code: 'X', timeout: Infinity }, 'timeout', /duration/],
    [{ code: 'X', maxRetries: -1 }, 'maxRetries', /^must be an integer from 0 to /],
    [{ code: 'X', maxRetries: '3' }, 'maxRetries', /integer/],
    [{ code: 'X', maxRetries: Infinity }, 'maxRetries', /integer/],
    [{ code: 'X', priority: 'high' }, 'priority', /integer/],
    [{ code: 'X', priority: 2_000_000 }, 'priority', /integer/],
    [{ code: 'X', backoff: 'double' }, 'backoff', /duration/],
    [{ code: 'X', backoff: { type: 'fixed' } }, 'backoff.delay', /duration/],
    [
      { code: 'X', retries: 3 },
      'retries',
      /^is not an option: did you mean maxRetries\? Known options: code, /,
    ],
    [{ code: 'X', engine: 5 }, 'engine', /string/],
  ])('%o fails the boot', async (options, option, problem) => {
    const error = await bootErrorOf(handler(options));
    expect(error).toBeInstanceOf(BildadConfigError);
    const { field, where, problem: given } = error as BildadConfigError;
    expect([field, where]).toEqual([option, '@BildadJob of WrongJob']);
    expect(given).toMatch(problem);
    expect(error.message).toMatch(
      /^\w+(\.\w+)? (must be .*, got .*|is not an option.*) \(@BildadJob of WrongJob\)$/,
    );
  });

  it('a string in place of the options is rejected', async () => {
    const error = await bootErrorOf(handler('SEND_EMAIL' as never));
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toBe('options must be an object, not string (@BildadJob of WrongJob)');
  });
});
