import {
  BildadConfigError,
  BildadJob,
  InvalidJobSchemaError,
  type BildadJobOptions,
} from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { bootError, bootHost } from '../support/host.js';

// A wrong handler class keeps the app from starting, before the database is touched, and the message names the class.

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

const wrong = (...providers: (new () => object)[]) => bootError({ url: database.url, providers });

/** A handler class with these options, whatever their types. */
function handler(options: object): new () => object {
  @BildadJob(options as BildadJobOptions)
  class WrongJob {
    runJob() {}
  }
  return WrongJob;
}

describe('codes', () => {
  it('two classes of one code are both named', async () => {
    @BildadJob({ code: 'TWICE' })
    class FirstJob {
      runJob() {}
    }
    @BildadJob({ code: 'TWICE' })
    class SecondJob {
      runJob() {}
    }
    const error = await wrong(FirstJob, SecondJob);
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toMatch(/FirstJob/);
    expect(error.message).toMatch(/SecondJob/);
    expect(error.message).toMatch(/"TWICE"/);
  });

  it('two classes of one code may serve two engines', async () => {
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
  it('without runJob is named', async () => {
    @BildadJob({ code: 'IDLE' })
    class IdleJob {
      run() {}
    }
    const error = await wrong(IdleJob);
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toMatch(/IdleJob.*runJob\(context, job\)/);
  });

  it('without runJob is found also when a factory makes it', async () => {
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
  it('a class without class-validator decorators is named, and so is its handler', async () => {
    class PlainContext {
      to!: string;
    }
    const error = await wrong(handler({ code: 'X', context: PlainContext }));
    expect(error).toBeInstanceOf(InvalidJobSchemaError);
    expect(error.message).toMatch(/WrongJob.*PlainContext.*class-validator/);
  });

  it.each<[what: string, context: object, problem: RegExp]>([
    ['an unknown type', { type: 'strnig' }, /type/],
    ['a type that is no text', { type: 5 }, /type/],
    ['properties that are a list', { properties: [] }, /properties/],
    ['required that is text', { required: 'to' }, /required/],
    ['a pattern that does not compile', { pattern: '(' }, /pattern|regular/i],
    ['a reference to nowhere', { $ref: '#/$defs/none' }, /none/],
    ['an unknown dialect', { $schema: 'http://x/none#' }, /schema/],
    ['a negative length', { minLength: -1 }, /minLength/],
    ['$async', { $async: true, type: 'object' }, /async/],
    ['a list', [{ type: 'object' }], /object/],
  ])('a JSON Schema with %s is refused', async (_what, context, problem) => {
    const error = await wrong(handler({ code: 'X', context }));
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
  ])('%o is refused', async (options, option, problem) => {
    const error = await wrong(handler(options));
    expect(error).toBeInstanceOf(BildadConfigError);
    const { field, where, problem: given } = error as BildadConfigError;
    expect([field, where]).toEqual([option, '@BildadJob of WrongJob']);
    expect(given).toMatch(problem);
    expect(error.message).toMatch(
      /^\w+(\.\w+)? (must be .*, got .*|is not an option.*) \(@BildadJob of WrongJob\)$/,
    );
  });

  it('with text instead of options is refused', async () => {
    const error = await wrong(handler('SEND_EMAIL' as never));
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error.message).toBe('options must be an object, not string (@BildadJob of WrongJob)');
  });
});
