import { fork } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { opening } from './host-messages.js';
import type { HostLink, StartHost } from './host-link.js';

/** The descriptor by which the guardian of a process tells what it uses, and why it ends it: a JSON text a line. */
export const GUARDIAN_FD = 4;

export interface ProcessUsage {
  cpuMs: number;
  memoryBytes: number;
}

export type GuardianWords = ProcessUsage | { lastWords: string };

/** What a process said last has come by then. */
const LAST_WORDS_MS = 500;

/** Two debuggers cannot listen on one port. */
const DEBUGGER = /^--(inspect|debug)/;

/** Windows has none: there what a host started goes on. */
const HAS_GROUPS = process.platform !== 'win32';

/** Ends a host, and what its handlers started and did not detach from it. */
export function killGroup(leader: number): void {
  try {
    process.kill(HAS_GROUPS ? -leader : leader, 'SIGKILL');
  } catch {
    // Nothing is left of it.
  }
}

const isWords = (words: unknown): words is GuardianWords => {
  const told = words as Record<string, unknown> | null;
  return (
    typeof told?.['lastWords'] === 'string' ||
    (typeof told?.['cpuMs'] === 'number' && typeof told['memoryBytes'] === 'number')
  );
};

/** A handler may have written something else to that descriptor. */
function wordsOf(line: string): GuardianWords | null {
  try {
    const words: unknown = JSON.parse(line);
    return isWords(words) ? words : null;
  } catch {
    return null;
  }
}

/** @param entry what the process runs */
export const processes =
  (entry: URL): StartHost =>
  (setup, limits, hear) => {
    const { memoryLimit } = limits;
    const child = fork(entry, [JSON.stringify({ setup, limits })], {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', 'pipe'],
      // The leader of a group of its own.
      detached: HAS_GROUPS,
      execArgv: [
        ...process.execArgv.filter((argument) => !DEBUGGER.test(argument)),
        ...(memoryLimit === undefined ? [] : [`--max-old-space-size=${memoryLimit}`]),
      ],
    });
    let lastWords = '';
    let usage: ProcessUsage | null = null;
    const pipe = child.stdio[GUARDIAN_FD] as Readable;
    // It may be gone before anything was read.
    pipe.on('error', () => undefined);
    createInterface(pipe).on('line', (line) => {
      const told = wordsOf(line);
      if (told && 'lastWords' in told) lastWords = told.lastWords;
      else usage = told ?? usage;
    });
    // That it could not be started; or that it did not get a message, which its end tells as well.
    child.on('error', (error) => {
      lastWords ||= error.message;
    });
    child.on('message', opening(hear));
    const gone = new Promise<string>((resolve) => {
      const end = (code: number | null, signal: string | null) =>
        resolve(
          lastWords || (signal ? `it was ended by ${signal}` : `it ended with exit code ${code}`),
        );
      // Not at once: what it said last may still be under way, and is where nobody it left behind holds the wire.
      child.once('close', end);
      child.once('exit', (code, signal) => {
        killGroup(child.pid!);
        setTimeout(end, LAST_WORDS_MS, code, signal).unref();
      });
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
      usage: () => usage,
      kill: async () => {
        if (child.pid !== undefined && child.exitCode === null) killGroup(child.pid);
        await gone;
      },
    };
    return link;
  };
