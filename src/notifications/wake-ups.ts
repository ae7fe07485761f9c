import type { Due } from '../lifecycle/enqueue/wake-up-port.js';
import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import { outside } from '../database/transactions/current-transaction.js';
import { CommitWatch } from '../database/transactions/commit-watch.js';
import type { Following } from '../database/connection/piggyback.js';
import { dueNotice, notifyDue } from './notify.sql.js';

/** An insert so long after the last telling is one of few, and takes the next telling along. */
const ALONE_MS = 20;

/**
 * What is enqueued here is told to this node at once, and to others once for all that came while the last
 * telling was under way. Nothing depends on it: the tick finds what a wake-up missed.
 */
export class WakeUps implements Due {
  private readonly commits: CommitWatch;
  private telling: Promise<void> | undefined;
  private tellAgain = false;
  private toldAt = -Infinity;
  private wakeHere: () => void = () => undefined;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly toOthers: boolean,
  ) {
    this.commits = new CommitWatch(store.dataSource, () => this.now());
  }

  /** @param wakeHere starts what is due on this node; not given where it runs no jobs */
  start(wakeHere?: () => void): void {
    if (wakeHere) this.wakeHere = wakeHere;
    this.commits.start();
  }

  /** Resolves when nothing is being told any more. Safe if never started. */
  async stop(): Promise<void> {
    this.commits.stop();
    this.wakeHere = () => undefined;
    await this.telling;
  }

  now({ here = true, others = true } = {}): void {
    if (here) outside(this.wakeHere);
    if (!this.toOthers || !others) return;
    if (this.telling) this.tellAgain = true;
    else this.telling = this.tell();
  }

  along(): Following | null {
    const { tables } = this.store;
    const now = performance.now();
    const alone = now - this.toldAt > ALONE_MS;
    if (!this.toOthers || this.telling || !alone) return null;
    this.toldAt = now;
    return {
      ...dueNotice(tables, this.node.id),
      settled: (error) => {
        if (error !== undefined) this.failed(error);
      },
    };
  }

  after(manager: Parameters<Due['after']>[0]): void {
    this.commits.after(manager);
  }

  /** Never rejects. */
  private async tell(): Promise<void> {
    const { db, tables } = this.store;
    try {
      do {
        // Those whose insert was answered in this very turn come along.
        await Promise.resolve();
        this.tellAgain = false;
        await notifyDue(db, tables, this.node.id);
      } while (this.tellAgain);
    } catch (error) {
      this.failed(error);
    } finally {
      this.toldAt = performance.now();
      this.telling = undefined;
    }
  }

  private failed(error: unknown): void {
    this.events.emit('engine.error', { doing: 'waking other nodes', error });
  }
}
