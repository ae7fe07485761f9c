import type { Violation } from './checker.js';
import { memberOf, type Timeline } from './timeline.js';

const DEADLOCK = '40P01';
/** For so long an app tries to reach its database. */
const BOOT_MS = 10_000;
/** What keeps a process alive, or a server busy. A deaf handler's own timer is not the engine's. */
const LEAKS = ['TCPSocketWrap', 'TCPServerWrap', 'Worker', 'ProcessWrap'];

/** I9, I10 and I15: what processes do beside their jobs. */
export function checkProcesses(timeline: Timeline): Violation[] {
  const { limits } = timeline.history;
  const found: Violation[] = [];
  const say = (invariant: Violation['invariant'], what: string) => found.push({ invariant, what });

  for (const { by, error } of timeline.all('fatal')) say('I9', `${by}: ${error}`);
  for (const { worker, cause, code, at } of timeline.exits.values()) {
    if (cause === 'itself') say('I9', `${worker} ended by itself, with ${code}`);
    // An app that cannot reach its database at its start may give up.
    if (cause === 'boot' && !timeline.wasFaulted(worker, [at - BOOT_MS, at]))
      say('I9', `${worker} did not start, with ${code}`);
  }
  for (const { by, doing, code } of timeline.all('engineError'))
    if (code === DEADLOCK) say('I9', `${by}: a deadlock in ${doing}`);

  for (const { worker, ms, deadlineMs, overdue } of timeline.all('close'))
    if (overdue || ms > deadlineMs)
      say(
        'I10',
        `${worker} took ${overdue ? 'more than ' : ''}${ms} ms to close; ${deadlineMs} are allowed`,
      );

  const most = new Map<string, number>();
  for (const { worker, open } of timeline.all('connections'))
    most.set(memberOf(worker), Math.max(most.get(memberOf(worker)) ?? 0, open));
  for (const [worker, open] of most)
    if (open > limits.connections)
      say('I15', `${worker} held ${open} connections; ${limits.connections} are allowed`);
  for (const { by, left } of timeline.all('closed')) {
    const leaked = left.filter((name) => LEAKS.includes(name));
    if (leaked.length > 0) say('I15', `${by} closed, and left ${leaked.join(', ')}`);
  }
  return found;
}
