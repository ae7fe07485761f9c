import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import { takeAlarm, unrunnableJobs } from './unrunnable-jobs.sql.js';

const EVERY_MS = 60_000;
/** A deploy that brings the handler may be under way. */
export const UNRUNNABLE_AFTER_MS = 60_000;

/** Says, once a minute of all nodes of an engine, which jobs wait for a handler that nobody has. They go on waiting. */
export class UnrunnableAlarm {
  private lastAt: number;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly engineName: string,
    private readonly now = () => performance.now(),
  ) {
    this.lastAt = now();
  }

  async run(): Promise<void> {
    if (this.now() < this.lastAt + EVERY_MS) return;
    this.lastAt = this.now();
    const { db, tables } = this.store;
    if (!(await takeAlarm(db, tables, this.engineName, EVERY_MS))) return;
    for (const jobs of await unrunnableJobs(db, tables, UNRUNNABLE_AFTER_MS))
      this.events.emit('engine.unrunnable', jobs);
  }
}
