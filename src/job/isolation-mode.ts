/**
 * Where a handler runs: `inline` in the process of the app, `thread` in a worker thread, `process` in a process of
 * its own. What is not inline can be killed.
 */
export type Isolation = 'inline' | 'thread' | 'process';

/** The kinds of hosts: threads and processes that have booted the app's module, and run one job at a time. */
export type HostKind = Exclude<Isolation, 'inline'>;

export const ISOLATIONS: readonly Isolation[] = ['inline', 'thread', 'process'];
