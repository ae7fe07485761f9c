import type { EntityManager } from 'typeorm';
import type { JobEvents } from '../../job/events.js';
import type { EntryReference } from './enqueue.sql.js';
import type { WakeUps } from '../../notifications/wake-ups.js';

/** Who is to hear of entries that were put in. */
export class EnqueueNews {
  constructor(
    private readonly events: JobEvents,
    private readonly wakeUps: WakeUps,
  ) {}

  /** They are committed. */
  tell(templateCode: string, entries: EntryReference[]): void {
    for (const { id, jobRunIdentifier } of entries)
      this.events.emit('entry.enqueued', {
        jobQueueEntryId: id,
        jobRunIdentifier,
        templateCode,
      });
  }

  /** Who is to start them, if they are due. @param manager of the transaction they are part of: not before that is committed */
  wake(
    areDue: boolean,
    manager: EntityManager | undefined,
    whom?: Parameters<WakeUps['wake']>[0],
  ): void {
    if (!areDue) return;
    if (manager) this.wakeUps.wakeAfterCommit(manager);
    else this.wakeUps.wake(whom);
  }

  /** What tells others, to be sent along with the insert. */
  along(areDue: boolean): ReturnType<WakeUps['piggyback']> {
    return areDue ? this.wakeUps.piggyback() : null;
  }
}
