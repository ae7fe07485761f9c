import { Worker } from 'node:worker_threads';
import { opening } from './host-messages.js';
import type { HostLimits, HostLink, StartHost } from './host-link.js';

/** @param entry what the thread runs */
export const threads =
  (entry: URL): StartHost =>
  (setup, limits, hear) => {
    const worker = new Worker(entry, {
      workerData: setup,
      resourceLimits:
        limits.memoryLimit === undefined ? {} : { maxOldGenerationSizeMb: limits.memoryLimit },
    });
    const id = worker.threadId;
    let cause: string | undefined;
    // Without a listener an 'error' would end the process.
    worker.on('error', (error) => {
      cause = whyOf(error, limits);
    });
    worker.on('message', opening(hear));
    const gone = new Promise<string>((resolve) =>
      worker.once('exit', (code) => resolve(cause ?? `it ended with exit code ${code}`)),
    );
    const link: HostLink = {
      kind: 'thread',
      id,
      gone,
      send: (order) => worker.postMessage(order, []),
      usage: () => ({
        cpuMs: Math.round(worker.performance.eventLoopUtilization().active),
        memoryBytes: null,
      }),
      kill: async () => void (await worker.terminate()),
    };
    return link;
  };

function whyOf(error: unknown, { memoryLimit }: HostLimits): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return code === 'ERR_WORKER_OUT_OF_MEMORY'
    ? `it needed more memory than ${memoryLimit === undefined ? 'Node allows' : `memoryLimit allows (${memoryLimit} MiB)`}`
    : String(message);
}
