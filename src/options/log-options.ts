import { toMilliseconds, type Duration } from '../job/duration.js';
import { BildadConfigError } from '../job/errors.js';
import { oneOf, refuseUnknown, wholeNumber } from './option-values.js';

/** What is kept of the lines that handlers log. */
export interface LogOptions {
  /** Whose lines: of runs that did not succeed, of all, of none. Those of encrypted jobs never are. Default `'failed'`. */
  keep?: 'failed' | 'always' | 'never';
  /** Of a run the last so many, from 1 to 10,000. Default 200. */
  lines?: number;
  /** UTF-8 bytes of a line, from 1 to 65,536; what is beyond is cut off. Default 2,000. */
  lineBytes?: number;
  /** UTF-8 bytes of a run's lines together, from 1 to 16,777,216; the oldest go first. Default 64,000. */
  runBytes?: number;
  /**
   * What is to be kept of a line, called when it is about to be. What it returns that is no text, and what it throws, has
   * the line replaced. Default: all of it.
   */
  redact?: (line: string) => string;
  /** How long lines and progress are kept, if their run is kept as long; from `'1m'`. Default `'7d'`. */
  retention?: Duration;
}

export interface LogSettings {
  keep: 'failed' | 'always' | 'never';
  lines: number;
  lineBytes: number;
  runBytes: number;
  redact: ((line: string) => string) | undefined;
  retentionMs: number;
}

/** @throws BildadConfigError naming the first wrong one */
export function readLogs(options: LogOptions = {}): LogSettings {
  refuseUnknown(options, 'logs.', [
    'keep',
    'lines',
    'lineBytes',
    'runBytes',
    'redact',
    'retention',
  ]);
  const {
    keep = 'failed',
    lines = 200,
    lineBytes = 2_000,
    runBytes = 64_000,
    redact,
    retention = '7d',
  } = options;
  if (redact !== undefined && typeof redact !== 'function')
    throw new BildadConfigError(
      'logs.redact',
      'a function that returns what is to be kept of a line',
      redact,
    );
  return {
    keep: oneOf(keep, 'logs.keep', ['failed', 'always', 'never']),
    lines: wholeNumber(lines, 'logs.lines', 1, 10_000),
    lineBytes: wholeNumber(lineBytes, 'logs.lineBytes', 1, 65_536),
    runBytes: wholeNumber(runBytes, 'logs.runBytes', 1, 16_777_216),
    redact,
    retentionMs: toMilliseconds(retention, 'logs.retention', { min: 60_000 }),
  };
}
