import { fork } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { unwrap, type HostLink, type StartHost, type HostLimits } from './host-protocol.js';
import { Worker } from 'node:worker_threads';

/**
 * File descriptor on which a process's guardian writes its usage and the reason of a kill, one JSON
 * text per line.
 */
export const GUARDIAN_FD = 4;

export interface ProcessUsage {
  cpuMs: number;
  memoryBytes: number;
}

export type GuardianReport = ProcessUsage | { killReason: string };

/** The guardian's last report arrives within this time after the exit. */
const LAST_REPORT_MS = 500;

/** Flags that are not passed on: two debuggers cannot listen on one port. */
const DEBUGGER = /^--(inspect|debug)/;

/** Windows has no process groups: processes that a host started outlive it there. */
const HAS_GROUPS = process.platform !== 'win32';

/** Kills a host and all processes of its group. */
export function killGroup(leader: number): void {
  try {
    process.kill(HAS_GROUPS ? -leader : leader, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

function isReport(value: unknown): value is GuardianReport {
  const facts = value as Record<string, unknown> | null;
  return (
    typeof facts?.['killReason'] === 'string' ||
    (typeof facts?.['cpuMs'] === 'number' && typeof facts['memoryBytes'] === 'number')
  );
}

/** Null for other text: a handler may write to that descriptor, too. */
function readReport(line: string): GuardianReport | null {
  try {
    const report: unknown = JSON.parse(line);
    return isReport(report) ? report : null;
  } catch {
    return null;
  }
}

/** @param entry the script of the process */
export const startProcess =
  (entry: URL): StartHost =>
  (setup, limits, onMessage) => {
    const { memoryLimit } = limits;
    const child = fork(entry, [JSON.stringify({ setup, limits })], {
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', 'pipe'],
      // Makes it the leader of its own process group.
      detached: HAS_GROUPS,
      execArgv: [
        ...process.execArgv.filter((argument) => !DEBUGGER.test(argument)),
        ...(memoryLimit === undefined ? [] : [`--max-old-space-size=${memoryLimit}`]),
      ],
    });
    let killReason = '';
    let usage: ProcessUsage | null = null;
    const pipe = child.stdio[GUARDIAN_FD] as Readable;
    // The process may end before anything is read.
    pipe.on('error', () => undefined);
    createInterface(pipe).on('line', (line) => {
      const report = readReport(line);
      if (report && 'killReason' in report) killReason = report.killReason;
      else usage = report ?? usage;
    });
    // It could not be started, or did not receive a message because it ended.
    child.on('error', (error) => {
      killReason ||= error.message;
    });
    child.on('message', unwrap(onMessage));
    const exited = new Promise<string>((resolve) => {
      const end = (code: number | null, signal: string | null) =>
        resolve(
          killReason || (signal ? `it was ended by ${signal}` : `it ended with exit code ${code}`),
        );
      // A delay, because the last report may still be on its way; 'close' may never come when a
      // child keeps the pipe open.
      child.once('close', end);
      child.once('exit', (code, signal) => {
        killGroup(child.pid!);
        setTimeout(end, LAST_REPORT_MS, code, signal).unref();
      });
      child.once('error', () => {
        if (child.pid === undefined) end(null, null);
      });
    });
    const link: HostLink = {
      kind: 'process',
      id: child.pid ?? 0,
      exited,
      send: (command) => {
        if (child.connected) child.send(command, () => undefined);
      },
      usage: () => usage,
      kill: async () => {
        if (child.pid !== undefined && child.exitCode === null) killGroup(child.pid);
        await exited;
      },
    };
    return link;
  };

/** @param entry the script of the thread */
export const startThread =
  (entry: URL): StartHost =>
  (setup, limits, onMessage) => {
    const worker = new Worker(entry, {
      workerData: setup,
      resourceLimits:
        limits.memoryLimit === undefined ? {} : { maxOldGenerationSizeMb: limits.memoryLimit },
    });
    const id = worker.threadId;
    let cause: string | undefined;
    // Without a listener an 'error' would end the process.
    worker.on('error', (error) => {
      cause = exitReason(error, limits);
    });
    worker.on('message', unwrap(onMessage));
    const exited = new Promise<string>((resolve) =>
      worker.once('exit', (code) => resolve(cause ?? `it ended with exit code ${code}`)),
    );
    const link: HostLink = {
      kind: 'thread',
      id,
      exited,
      send: (command) => worker.postMessage(command, []),
      usage: () => ({
        cpuMs: Math.round(worker.performance.eventLoopUtilization().active),
        memoryBytes: null,
      }),
      kill: async () => void (await worker.terminate()),
    };
    return link;
  };

function exitReason(error: unknown, { memoryLimit }: HostLimits): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return code === 'ERR_WORKER_OUT_OF_MEMORY'
    ? `it needed more memory than ${memoryLimit === undefined ? 'Node allows' : `memoryLimit allows (${memoryLimit} MiB)`}`
    : String(message);
}
