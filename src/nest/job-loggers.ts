import { Logger } from '@nestjs/common';
import { identityOf } from '../life/execution.js';
import type { ClaimedRun } from '../model/facts.js';
import type { ExecutionLogger } from '../model/job-execution.js';
import { LogLine } from './log-line.js';

/** What handlers log with: under the name of their job, and with `fields` each line says which run it is of. */
export function jobLoggers(
  fields: boolean,
): (run: ClaimedRun) => ExecutionLogger {
  return (run) => {
    const logger = new Logger(`Bildad:${run.templateCode}`);
    if (!fields) return logger;
    const at = (level: keyof ExecutionLogger) => (message: unknown) =>
      logger[level](
        typeof message === 'string'
          ? new LogLine(message, identityOf(run))
          : message,
      );
    return {
      log: at('log'),
      warn: at('warn'),
      error: at('error'),
      debug: at('debug'),
    };
  };
}
