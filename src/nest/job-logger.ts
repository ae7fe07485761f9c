import { Logger } from '@nestjs/common';
import { lineOf } from '../life/notes.js';
import type { JobEvents } from '../model/events.js';
import type { ClaimedRun } from '../model/facts.js';
import type { ExecutionLogger, LogLevel } from '../model/job-execution.js';

/** What a job says goes to Nest's logger, and to who keeps it. */
class JobLogger implements ExecutionLogger {
  constructor(
    private readonly logger: Logger,
    private readonly events: JobEvents,
    private readonly run: ClaimedRun,
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
    this.logger[level](message, ...more);
    const { jobRunId, jobRunIdentifier, templateCode, retry } = this.run;
    this.events.emit('run.log', {
      jobRunId,
      jobRunIdentifier,
      templateCode,
      retry,
      level,
      message: lineOf(message, more),
    });
  }
}

/** One of Nest's loggers for each template: to make one takes longer than to write to it. */
export function jobLoggers(
  events: JobEvents,
): (run: ClaimedRun) => ExecutionLogger {
  const loggers = new Map<string, Logger>();
  return (run) => {
    const { templateCode } = run;
    let logger = loggers.get(templateCode);
    if (!logger) {
      logger = new Logger(`Bildad:${templateCode}`);
      loggers.set(templateCode, logger);
    }
    return new JobLogger(logger, events, run);
  };
}
