import { Logger } from '@nestjs/common';
import { identityOf } from '../../lifecycle/run/execution.js';
import { toLine } from '../../lifecycle/run/handler-output.js';
import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { ExecutionLogger, LogLevel } from '../../job/job-handler.js';
import { LogLine } from './log-lines.js';

/** The logger of one run: lines go to Nest's logger and to the event `run.log`. */
class JobLogger implements ExecutionLogger {
  constructor(
    private readonly logger: Logger,
    private readonly events: JobEvents,
    private readonly run: ClaimedRun,
    private readonly fields: boolean,
  ) {}

  log(message: unknown, ...more: unknown[]): void {
    this.write('log', message, more);
  }

  warn(message: unknown, ...more: unknown[]): void {
    this.write('warn', message, more);
  }

  error(message: unknown, ...more: unknown[]): void {
    this.write('error', message, more);
  }

  debug(message: unknown, ...more: unknown[]): void {
    this.write('debug', message, more);
  }

  verbose(message: unknown, ...more: unknown[]): void {
    this.write('verbose', message, more);
  }

  fatal(message: unknown, ...more: unknown[]): void {
    this.write('fatal', message, more);
  }

  private write(level: LogLevel, message: unknown, more: unknown[]): void {
    const run = identityOf(this.run);
    const line = toLine(message, more);
    // As one text: pino would use the argument after an object as the text of the line.
    if (this.fields && typeof message === 'string') this.logger[level](new LogLine(line, run));
    else this.logger[level](message, ...more);
    this.events.emit('run.log', { ...run, level, message: line });
  }
}

/**
 * One Nest logger per template, because creating one takes longer than writing to it.
 * @param fields whether each line has the identifiers of its run as fields
 */
export function jobLoggers(
  events: JobEvents,
  fields: boolean,
): (run: ClaimedRun) => ExecutionLogger {
  const loggers = new Map<string, Logger>();
  return (run) => {
    const { templateCode } = run;
    let logger = loggers.get(templateCode);
    if (!logger) {
      logger = new Logger(`Bildad:${templateCode}`);
      loggers.set(templateCode, logger);
    }
    return new JobLogger(logger, events, run, fields);
  };
}
