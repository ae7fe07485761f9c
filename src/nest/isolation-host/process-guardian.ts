import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { GUARDIAN_FD, killGroup, type GuardianReport } from '../../isolation/start-host.js';

// A thread beside the main thread of a host process: it works while a handler blocks the main
// thread.

export interface GuardianData {
  /** Pid of the node. */
  parent: number;
  /** MiB of the whole process including buffers; V8's own limit covers only its heap. */
  memoryLimit: number | undefined;
}

const CHECK_MS = 100;
const CHECKS_PER_REPORT = 10;
const MIB = 1_048_576;

const { parent, memoryLimit } = workerData as GuardianData;
const end = () => killGroup(process.pid);

function report(facts: GuardianReport): void {
  try {
    writeSync(GUARDIAN_FD, `${JSON.stringify(facts)}\n`);
  } catch {
    // The node does not read: it is busy or has ended, and then this process ends as well.
  }
}

let checks = 0;
setInterval(() => {
  if (process.ppid !== parent) end();
  const memoryBytes = process.memoryUsage.rss();
  const used = Math.round(memoryBytes / MIB);
  if (memoryLimit !== undefined && used > memoryLimit) {
    report({
      killReason: `it needed ${used} MiB of memory; memoryLimit is ${memoryLimit}`,
    });
    end();
  }
  if (checks++ % CHECKS_PER_REPORT === 0) {
    const { user, system } = process.cpuUsage();
    report({ memoryBytes, cpuMs: Math.round((user + system) / 1_000) });
  }
}, CHECK_MS);
