import { readFileSync } from 'node:fs';

/** Whether there is such a process, and it has not ended. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // It has ended, and nobody has asked for its exit code.
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
