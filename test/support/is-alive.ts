import { readFileSync } from 'node:fs';

/** Whether a process with this id exists and has not exited. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // The process has exited, and its parent has not read the exit code.
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
