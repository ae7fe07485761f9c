import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

/**
 * TCP connections to a local port that a process holds, by what the kernel says of it: a wire that is cut or silent
 * does not see one end. A connection that is being made is one. @returns 0 where the process is gone
 */
export function socketsTo(port: number, pid: number): number {
  try {
    const held = new Set(readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(pid, fd)));
    const [, ...lines] = readFileSync(`/proc/${pid}/net/tcp`, 'latin1').trim().split('\n');
    return lines
      .map((line) => line.trim().split(/\s+/))
      .filter(
        ([, , remote, , , , , , , inode]) =>
          parseInt(remote!.split(':')[1]!, 16) === port && held.has(`socket:[${inode}]`),
      ).length;
  } catch (error) {
    if (isGone(error)) return 0;
    throw error;
  }
}

/** Closed since it was listed, it is none. */
function linkOf(pid: number, fd: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

const isGone = (error: unknown) =>
  ['ENOENT', 'ESRCH', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '');
