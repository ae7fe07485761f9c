import { Logger } from '@nestjs/common';
import { identityOf } from '../../lifecycle/run/execution.js';
import { lineOf } from '../../lifecycle/run/handler-output.js';
import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { ExecutionLogger, LogLevel } from '../../job/job-execution.js';
import { LogLine } from './log-line.js';

/** What a job says goes to Nest's logger, and to who keeps it. */
class JobLogger implements ExecutionLogger {
  constructor(
    private readonly logger: Logger,
    private readonly events: JobEvents,
    private readonly run: ClaimedRun,
    private readonly fields: boolean,
  ) {}

  log(message: unknown, ...more: unknown[]): void {
    this.say('log', message, more);
  }

  warn(message: unknown, ...more: unknown[]): void {
    this.say('warn', message, more);
  }

  error(message: unknown, ...more: unknown[]): void {
    this.say('error', message, more);
  }

  debug(message: unknown, ...more: unknown[]): void {
    this.say('debug', message, more);
  }

  verbose(message: unknown, ...more: unknown[]): void {
    this.say('verbose', message, more);
  }

  fatal(message: unknown, ...more: unknown[]): void {
    this.say('fatal', message, more);
  }

  private say(level: LogLevel, message: unknown, more: unknown[]): void {
    const run = identityOf(this.run);
    const line = lineOf(message, more);
    // As one text: pino would take what comes after an object for the text of the line.
    if (this.fields && typeof message === 'string') this.logger[level](new LogLine(line, run));
    else this.logger[level](message, ...more);
    this.events.emit('run.log', { ...run, level, message: line });
  }
}

/**
 * One of Nest's loggers for each template: to make one takes longer than to write to it.
 * @param fields whether each line says as fields which run it is of
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
