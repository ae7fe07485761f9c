import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { GUARDIAN_FD, killGroup, type GuardianWords } from '../../isolation/process-host.js';

// A thread of a process that hosts jobs: it sees what the main thread cannot while a handler blocks it.

export interface GuardianData {
  /** The node's pid. */
  parent: number;
  /** MiB of the whole process, buffers included; V8's own limit knows only its heap. */
  memoryLimit: number | undefined;
}

const LOOK_MS = 100;
/** One look of so many is told. */
const LOOKS_TOLD = 10;
const MIB = 1_048_576;

const { parent, memoryLimit } = workerData as GuardianData;
const end = () => killGroup(process.pid);

function tell(words: GuardianWords): void {
  try {
    writeSync(GUARDIAN_FD, `${JSON.stringify(words)}\n`);
  } catch {
    // Nobody reads: the node is busy, or gone, and then this process ends as well.
  }
}

let looks = 0;
setInterval(() => {
  if (process.ppid !== parent) end();
  const memoryBytes = process.memoryUsage.rss();
  const used = Math.round(memoryBytes / MIB);
  if (memoryLimit !== undefined && used > memoryLimit) {
    tell({
      lastWords: `it needed ${used} MiB of memory; memoryLimit is ${memoryLimit}`,
    });
    end();
  }
  if (looks++ % LOOKS_TOLD === 0) {
    const { user, system } = process.cpuUsage();
    tell({ memoryBytes, cpuMs: Math.round((user + system) / 1_000) });
  }
}, LOOK_MS);
