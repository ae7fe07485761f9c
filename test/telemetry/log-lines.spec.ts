import { ConsoleLogger, Logger, type LoggerService, type LogLevel } from '@nestjs/common';
import { BildadJob, JobEngineService, JobEvents, type JobExecution } from 'nestjs-bildad';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { bootHost } from '../support/host.js';

// The level of each log line, and its fields in common loggers.

@BildadJob({ code: 'LOUD', maxRetries: 1 })
class LoudJob {
  runJob({ does }: { does: string }, job: JobExecution): void {
    job.log('at work');
    if (does === 'snooze' && job.retry === 0) job.snooze('1h');
    if (does === 'cancel') job.cancel('enough');
    if (does === 'fail') {
      job.logger.error('gave up', 'its stack');
      throw new RangeError('no');
    }
  }
}

interface Line {
  level: LogLevel;
  message: unknown;
  context: unknown;
}

/** Collects the lines that Nest passes to the app's logger. */
function collectLines(): { lines: Line[]; logger: LoggerService } {
  const lines: Line[] = [];
  const at =
    (level: LogLevel) =>
    (message: unknown, ...rest: unknown[]) =>
      void lines.push({ level, message, context: rest.at(-1) });
  return {
    lines,
    logger: {
      log: at('log'),
      error: at('error'),
      warn: at('warn'),
      debug: at('debug'),
    },
  };
}

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(async () => {
  Logger.overrideLogger(false);
  await database.drop();
});

async function boot(logger: LoggerService, logFields?: boolean) {
  const app = await bootHost({
    url: database.url,
    providers: [LoudJob],
    logger,
    bildad: { ...(logFields !== undefined && { logFields }) },
  });
  return { app, engine: app.get(JobEngineService), events: app.get(JobEvents) };
}

/** Runs a job, and its retry if there is one. */
async function run(engine: JobEngineService, events: JobEvents, does: string): Promise<void> {
  const ended = () =>
    new Promise<string>((resolve) => {
      const off = events.on('run.finished', ({ entry }) => {
        off();
        resolve(entry);
      });
    });
  const first = ended();
  const started = await engine.enqueueAndRunJob(LoudJob, { does });
  if ((await first) !== 'reopened' || does === 'snooze') return;
  const second = ended();
  await engine.runJobEngine();
  await second;
  expect(started.retry).toBe(0);
}

describe('levels', () => {
  const { lines, logger } = collectLines();
  let node: Awaited<ReturnType<typeof boot>>;
  beforeAll(async () => {
    node = await boot(logger);
  });
  afterAll(() => node.app.close());

  it.each<[string, [LogLevel, RegExp][]]>([
    ['succeed', [['debug', /completed, entry removed$/]]],
    ['snooze', [['debug', /snoozed, entry reopened$/]]],
    ['cancel', [['log', /cancelled, entry removed$/]]],
    [
      'fail',
      [
        ['warn', /failed with RangeError, entry reopened$/],
        ['error', /failed with RangeError, entry removed$/],
      ],
    ],
  ])('%s', async (does, expected) => {
    lines.length = 0;
    await run(node.engine, node.events, does);
    const ends = lines
      .filter(({ context }) => context === 'Bildad')
      .filter(({ message }) => / entry /.test(String(message)));
    expect(ends.map(({ level }) => level)).toEqual(expected.map(([level]) => level));
    for (const [index, { message }] of ends.entries()) {
      expect(message).toBeTypeOf('string');
      expect(message).toMatch(expected[index]![1]);
    }
  });

  it('an engine error is logged with its class and code, without its message', () => {
    lines.length = 0;
    const error = Object.assign(new Error('of a value', { cause: new TypeError('of another') }), {
      name: 'QueryFailedError',
      driverError: { code: '23514', constraint: 'c', table: 't' },
    });
    node.events.emit('engine.error', { doing: 'a test', error });
    expect(lines).toEqual([
      {
        level: 'error',
        context: 'Bildad',
        message:
          'a test failed with QueryFailedError (23514), caused by TypeError; the engine continues',
      },
    ]);
  });
});

describe('logFields', () => {
  it('a line prints as text and serializes as fields', async () => {
    const { lines, logger } = collectLines();
    const { app, engine, events } = await boot(logger, true);
    await run(engine, events, 'fail');
    await app.close();
    const { message, level } = lines.find(
      ({ level, context }) => level === 'error' && context === 'Bildad',
    )!;
    const text = /^LOUD ".*" \(run \d+, retry 1\) failed with RangeError, entry removed$/;
    expect(level).toBe('error');
    expect(String(message)).toMatch(text);
    expect(inspect(message)).toMatch(text);
    expect((message as { message: string }).message).toMatch(text);
    expect(JSON.parse(JSON.stringify(message))).toEqual({
      msg: expect.stringMatching(text),
      event: 'run.finished',
      engine: 'default',
      templateCode: 'LOUD',
      jobRunIdentifier: expect.any(String),
      jobRunId: expect.stringMatching(/^\d+$/),
      retry: 1,
      outcome: 'failed',
      entry: 'removed',
      errorName: 'RangeError',
    });
    const own = lines.filter(({ context }) => context === 'Bildad:LOUD');
    expect(own.map(({ message }) => JSON.parse(JSON.stringify(message)))).toMatchObject([
      { msg: 'at work', templateCode: 'LOUD', retry: 0 },
      { msg: 'gave up its stack', templateCode: 'LOUD', retry: 0 },
      { msg: 'at work', templateCode: 'LOUD', retry: 1 },
      { msg: 'gave up its stack', templateCode: 'LOUD', retry: 1 },
    ]);
  });

  const error = new Error('x');
  const LOUD = { logLevels: ['error' as const], forceConsole: true };
  it.each([
    ['text', new ConsoleLogger({ ...LOUD, colors: false })],
    ['JSON', new ConsoleLogger({ ...LOUD, json: true })],
  ])("Nest's ConsoleLogger writes the line as %s", async (form, logger) => {
    const { app, events } = await boot(logger, true);
    const written: string[] = [];
    const { error: toConsole } = console;
    console.error = (line: string) => void written.push(line);
    try {
      events.emit('engine.error', { doing: 'a test', error });
    } finally {
      console.error = toConsole;
    }
    await app.close();
    expect(written).toHaveLength(1);
    if (form === 'text')
      expect(written[0]).toMatch(/ERROR \[Bildad\] a test failed with Error; the engine continues/);
    else
      expect(JSON.parse(written[0]!)).toMatchObject({
        level: 'error',
        context: 'Bildad',
        message: {
          msg: 'a test failed with Error; the engine continues',
          event: 'engine.error',
          doing: 'a test',
          errorName: 'Error',
        },
      });
  });
});
