import type { Moment } from './adapter.js';

/** Comparable between processes, unlike `performance.now()`. */
export const now = (): Moment => Number(process.hrtime.bigint()) / 1e6;

/** User and system time of this process, in milliseconds. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
