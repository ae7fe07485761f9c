import { fork } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { HostNews } from './messages.js';
import type { HostLink, StartHost } from './link.js';

/** The descriptor by which the guardian of a process tells why it ends it. */
export const LAST_WORDS_FD = 4;

/** Two debuggers cannot listen on one port. */
const DEBUGGER = /^--(inspect|debug)/;

/** @param entry what the process runs */
export const processes =
  (entry: URL): StartHost =>
  (setup, limits, hear) => {
    const { memoryLimit } = limits;
    const child = fork(entry, [JSON.stringify({ setup, limits })], {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', 'pipe'],
      execArgv: [
        ...process.execArgv.filter((argument) => !DEBUGGER.test(argument)),
        ...(memoryLimit === undefined
          ? []
          : [`--max-old-space-size=${memoryLimit}`]),
      ],
    });
    let lastWords = '';
    const pipe = child.stdio[LAST_WORDS_FD] as Readable;
    pipe.setEncoding('utf8').on('data', (text: string) => {
      lastWords += text;
    });
    // It may be gone before anything was read.
    pipe.on('error', () => undefined);
    // That it could not be started; or that it did not get a message, which its end tells as well.
    child.on('error', (error) => {
      lastWords ||= error.message;
    });
    child.on('message', (news: HostNews) => hear(news));
    const gone = new Promise<string>((resolve) => {
      const end = (code: number | null, signal: string | null) =>
        resolve(
          lastWords ||
            (signal
              ? `it was ended by ${signal}`
              : `it ended with exit code ${code}`),
        );
      // Not 'exit': what it said last may still be under way.
      child.once('close', end);
      child.once('error', () => {
        if (child.pid === undefined) end(null, null);
      });
    });
    const link: HostLink = {
      kind: 'process',
      id: child.pid ?? 0,
      gone,
      send: (order) => {
        if (child.connected) child.send(order, () => undefined);
      },
      kill: async () => {
        child.kill('SIGKILL');
        await gone;
      },
    };
    return link;
  };
