import type { EntityManager } from 'typeorm';
import type { PiggybackStatement } from '../database/connection/engine-pool.js';
import type { CommitWatch } from '../database/transactions/commit-watch.js';
import { outside } from '../database/transactions/current-transaction.js';
import type { NotificationBus, Topic } from './notification-bus.js';

/** An insert that comes so long after the last NOTIFY is one of few, and carries the next one. */
const ALONE_MS = 20;

/**
 * Wakes nodes when jobs are due: this one at once, the others with one NOTIFY for all jobs that came while the last one
 * was under way. Nothing depends on it: the tick finds what a wake-up missed.
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

  /** @param wakeHere starts due jobs on this node; omitted where it runs none */
  start(wakeHere?: () => void): void {
    if (wakeHere) this.wakeHere = wakeHere;
    this.commits.start();
  }

  /**
   * The jobs are committed.
   * @param here whether this process is to start them
   * @param others whether others are; not if they were notified along with the insert
   */
  wake({ here = true, others = true } = {}): void {
    if (here) outside(this.wakeHere);
    if (others) this.topic.send(null);
  }

  /** Wakes when the transaction of this manager commits. */
  wakeAfterCommit(manager: EntityManager): void {
    this.commits.afterCommit(manager, this.wakeCommitted);
  }

  private readonly wakeCommitted = () => this.wake();

  /** The NOTIFY for other nodes, to be sent along with an insert; null if one for many inserts is better. */
  piggyback(): PiggybackStatement | null {
    return this.topic.piggyback(null, ALONE_MS);
  }

  private async stop(): Promise<void> {
    this.commits.stop();
    this.wakeHere = () => undefined;
    await this.topic.idle();
  }
}
