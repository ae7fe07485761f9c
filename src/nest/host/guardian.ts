import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { LAST_WORDS_FD } from '../../runner/hosts/process.js';

// A thread of a process that hosts jobs: it sees what the main thread cannot while a handler blocks it.

export interface GuardianData {
  /** The node's pid. */
  parent: number;
  /** MiB of the whole process, buffers included; V8's own limit knows only its heap. */
  memoryLimit: number | undefined;
}

const LOOK_MS = 100;
const MIB = 1_048_576;

const { parent, memoryLimit } = workerData as GuardianData;
const end = () => process.kill(process.pid, 'SIGKILL');

setInterval(() => {
  if (process.ppid !== parent) end();
  if (memoryLimit === undefined) return;
  const used = process.memoryUsage.rss() / MIB;
  if (used <= memoryLimit) return;
  try {
    writeSync(
      LAST_WORDS_FD,
      `it needed ${Math.round(used)} MiB of memory; memoryLimit is ${memoryLimit}`,
    );
  } finally {
    end();
  }
}, LOOK_MS);
