import { inspect } from 'node:util';
import type { ExecutionLogger, LogLevel } from '../../job/job-execution.js';
import type { JsonValue } from '../../job/json.js';
import { clean } from '../../job/storable-output.js';

const MESSAGE_CHARACTERS = 1_000;
const CHUNK_CHARACTERS = 16_000;
const LINE_CHARACTERS = 65_536;

/** What a handler says of how far it is: its arithmetic must not fail its job. */
export function toldProgress(
  fraction: unknown,
  message: unknown,
): { fraction: number; message?: string } {
  const told = typeof fraction === 'number' ? between(fraction) : 0;
  if (message === undefined) return { fraction: told };
  // The heartbeat has it in its statement, with all other jobs of the node.
  return {
    fraction: told,
    message: clean(textOf(message), MESSAGE_CHARACTERS),
  };
}

const between = (fraction: number) => Math.min(Math.max(fraction || 0, 0), 1);

/** As JSON has it, apart from what the handler goes on with. @returns undefined for what cannot be sent */
export function streamable(chunk: unknown): JsonValue | undefined {
  try {
    const json = JSON.stringify(chunk) as string | undefined;
    if (json === undefined || json.length > CHUNK_CHARACTERS) return undefined;
    return typeof chunk === 'string' ? chunk : (JSON.parse(json) as JsonValue);
  } catch {
    return undefined;
  }
}

/** What was given to a logger, as one line of text. */
export function lineOf(message: unknown, more: readonly unknown[]): string {
  const line = more.length === 0 ? textOf(message) : [message, ...more].map(textOf).join(' ');
  return line.slice(0, LINE_CHARACTERS);
}

/** A logger of a job whose lines go to `say`. */
export function linesTo(say: (level: LogLevel, line: string) => void): ExecutionLogger {
  const at =
    (level: LogLevel) =>
    (message: unknown, ...more: unknown[]) =>
      say(level, lineOf(message, more));
  return {
    log: at('log'),
    warn: at('warn'),
    error: at('error'),
    debug: at('debug'),
    verbose: at('verbose'),
    fatal: at('fatal'),
  };
}

/** Never throws, whatever it is given. */
function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  try {
    if (!(value instanceof Error)) return inspect(value, INSPECT);
    const { stack }: { stack?: unknown } = value;
    return typeof stack === 'string' ? stack : String(value);
  } catch {
    return '[unprintable]';
  }
}

const INSPECT = {
  depth: 4,
  breakLength: Infinity,
  maxArrayLength: 50,
  maxStringLength: 10_000,
} as const;
