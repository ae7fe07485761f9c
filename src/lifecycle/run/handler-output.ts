import { inspect } from 'node:util';
import type { ExecutionLogger, LogLevel } from '../../job/job-handler.js';
import type { JsonValue } from '../../job/json.js';
import { clean } from '../../job/storable-output.js';

const MESSAGE_CHARACTERS = 1_000;
const CHUNK_CHARACTERS = 16_000;
const LINE_CHARACTERS = 65_536;

/** Progress as a handler reports it: a wrong fraction must not fail its job. */
export function toProgress(
  fraction: unknown,
  message: unknown,
): { fraction: number; message?: string } {
  const number = typeof fraction === 'number' ? fraction || 0 : 0;
  const valid = Math.min(Math.max(number, 0), 1);
  if (message === undefined) return { fraction: valid };
  // The heartbeat sends it in its statement, with all other jobs of the node.
  return {
    fraction: valid,
    message: clean(textOf(message), MESSAGE_CHARACTERS),
  };
}

/** A copy of the chunk as JSON has it. @returns undefined if it cannot be sent */
export function toChunk(chunk: unknown): JsonValue | undefined {
  try {
    const json = JSON.stringify(chunk) as string | undefined;
    if (json === undefined || json.length > CHUNK_CHARACTERS) return undefined;
    return typeof chunk === 'string' ? chunk : (JSON.parse(json) as JsonValue);
  } catch {
    return undefined;
  }
}

/** The arguments of a logger as one line of text. */
export function toLine(message: unknown, more: readonly unknown[]): string {
  const line = more.length === 0 ? textOf(message) : [message, ...more].map(textOf).join(' ');
  return line.slice(0, LINE_CHARACTERS);
}

/** A logger that hands each line to `write`. */
export function lineLogger(write: (level: LogLevel, line: string) => void): ExecutionLogger {
  const at =
    (level: LogLevel) =>
    (message: unknown, ...more: unknown[]) =>
      write(level, toLine(message, more));
  return {
    log: at('log'),
    warn: at('warn'),
    error: at('error'),
    debug: at('debug'),
    verbose: at('verbose'),
    fatal: at('fatal'),
  };
}

/** Never throws. */
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
