import type { JobEvents } from '../../job/events.js';
import type { NodeState } from '../../job/node-state.js';
import { endMissed } from '../enqueue/start-before.sql.js';
import type { Store } from '../../database/store.js';

const ENDED_AT_ONCE = 1_000;

/** Entries that were to be started by a time which is over: they leave the queue, for the history. */
export class MissedJobs {
  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
  ) {}

  async end(): Promise<void> {
    const { db, tables } = this.store;
    for (;;) {
      const { id } = this.node;
      const missed = await endMissed(db, tables, id, ENDED_AT_ONCE);
      for (const run of missed)
        this.events.emit('run.finished', {
          ...run,
          outcome: 'missed',
          entry: 'removed',
        });
      if (missed.length < ENDED_AT_ONCE || this.node.closing) return;
    }
  }
}
