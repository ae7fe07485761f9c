import { clearLine, cursorTo } from 'node:readline';
import { ConsoleLogger, type LogLevel } from '@nestjs/common';

/** Warnings and errors, on stderr and clear of the progress bar: stdout is for the result. */
export class StderrLogger extends ConsoleLogger {
  constructor() {
    super({
      logLevels: ['warn', 'error', 'fatal'],
      // Undefined, not false, where there is no terminal.
      colors: Boolean(process.stderr.isTTY),
    });
  }

  protected override printMessages(
    messages: unknown[],
    context?: string,
    level?: LogLevel,
    _stream?: 'stdout' | 'stderr',
    stack?: unknown,
    parameters?: Record<string, unknown>,
  ): void {
    if (process.stderr.isTTY) {
      clearLine(process.stderr, 0);
      cursorTo(process.stderr, 0);
    }
    super.printMessages(messages, context, level, 'stderr', stack, parameters);
  }
}
