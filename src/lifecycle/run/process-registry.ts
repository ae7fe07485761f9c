import type { JobProcess } from './job-process.js';

export interface ProcessWatcher {
  added?(process: JobProcess): void;
  removed?(process: JobProcess): void;
}

/** The processes of this node, by run. A process is in it before its handler starts, and as long as it holds a slot. */
export class ProcessRegistry {
  private readonly byRun = new Map<string, JobProcess>();
  private readonly watchers: ProcessWatcher[] = [];
  private emptied: (() => void)[] = [];

  get size(): number {
    return this.byRun.size;
  }

  all(): JobProcess[] {
    return [...this.byRun.values()];
  }

  find(jobRunId: string): JobProcess | null {
    return this.byRun.get(jobRunId) ?? null;
  }

  /** @returns false when the run has a process already: it must not get a second one */
  add(process: JobProcess): boolean {
    if (this.byRun.has(process.jobRunId)) return false;
    this.byRun.set(process.jobRunId, process);
    for (const watcher of this.watchers) watcher.added?.(process);
    return true;
  }

  remove(process: JobProcess): void {
    if (this.byRun.get(process.jobRunId) !== process) return;
    this.byRun.delete(process.jobRunId);
    for (const watcher of this.watchers) watcher.removed?.(process);
    if (this.byRun.size > 0) return;
    const waiting = this.emptied;
    this.emptied = [];
    for (const resolve of waiting) resolve();
  }

  watch(watcher: ProcessWatcher): void {
    this.watchers.push(watcher);
  }

  /** Resolves when no process is left. */
  waitUntilEmpty(): Promise<void> {
    return this.byRun.size === 0
      ? Promise.resolve()
      : new Promise((resolve) => this.emptied.push(resolve));
  }
}
