import { Logger } from '@nestjs/common';
import { identityOf } from '../life/execution.js';
import { lineOf } from '../life/notes.js';
import type { JobEvents } from '../model/events.js';
import type { ClaimedRun } from '../model/facts.js';
import type { ExecutionLogger, LogLevel } from '../model/job-execution.js';

/** What a job says goes to Nest's logger, and to who keeps it. Functions that handlers may pass on by themselves. */
export function jobLogger(run: ClaimedRun, events: JobEvents): ExecutionLogger {
  const logger = new Logger(`Bildad:${run.templateCode}`);
  const at =
    (level: LogLevel) =>
    (message: unknown, ...more: unknown[]): void => {
      logger[level](message, ...more);
      const line = lineOf(message, more);
      events.emit('run.log', { ...identityOf(run), level, message: line });
    };
  return {
    log: at('log'),
    warn: at('warn'),
    error: at('error'),
    debug: at('debug'),
    verbose: at('verbose'),
    fatal: at('fatal'),
  };
}
