import type { EntityManager } from 'typeorm';
import type { PiggybackStatement } from '../database/connection/engine-pool.js';
import type { CommitWatch } from '../database/transactions/commit-watch.js';
import { runOutsideTransaction } from '../database/transactions/current-transaction.js';
import type { NotificationBus, Topic } from './notification-bus.js';

/** An insert this long after the last NOTIFY carries the next one itself. */
const QUIET_MS = 20;

/**
 * Wakes nodes when jobs are due: this one at once, the others with one NOTIFY for all jobs that were enqueued while the
 * last one was in flight. Nothing depends on it: the tick finds jobs whose wake-up was lost.
 */
export class WakeUps {
  private readonly topic: Topic;
  private wakeHere: () => void = () => undefined;

  constructor(
    bus: NotificationBus,
    private readonly commits: CommitWatch,
  ) {
    this.topic = bus.createTopic({
      name: 'due',
      doing: 'waking other nodes',
      receive: () => this.wakeHere(),
    });
    bus.onConnected(() => this.wakeHere());
    bus.onStop(() => this.stop());
  }

  /** @param wakeHere starts due jobs on this node; omit it if the node runs none */
  start(wakeHere?: () => void): void {
    if (wakeHere) this.wakeHere = wakeHere;
    this.commits.start();
  }

  /**
   * Wakes nodes for committed jobs.
   * @param here whether to wake this node
   * @param others whether to wake other nodes; false if the insert has notified them
   */
  wake({ here = true, others = true } = {}): void {
    if (here) runOutsideTransaction(this.wakeHere);
    if (others) this.topic.send(null);
  }

  /** Wakes when the transaction of this manager commits. */
  wakeAfterCommit(manager: EntityManager): void {
    this.commits.afterCommit(manager, this.wakeCommitted);
  }

  private readonly wakeCommitted = () => this.wake();

  /** The NOTIFY for other nodes, to be sent with an insert; null if one for many inserts is cheaper. */
  piggyback(): PiggybackStatement | null {
    return this.topic.piggyback(null, QUIET_MS);
  }

  private async stop(): Promise<void> {
    this.commits.stop();
    this.wakeHere = () => undefined;
    await this.topic.idle();
  }
}
