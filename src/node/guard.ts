import type { Store } from '../database/store.js';
import type { NodeState } from '../job/node-state.js';
import { ensureConfig } from '../database/job-config.sql.js';
import { acquireGuard, dropGuard, releaseGuard } from './guard.sql.js';

/**
 * One pass at a time over all nodes: a lease on the engine's `JobConfig` row by the database's clock,
 * numbered with a fencing term. It saves work; what makes two engines at once harmless is that every
 * statement of a pass is conditional.
 */
export class SingleRunnerGuard {
  constructor(
    private readonly store: Store,
    private readonly name: string,
    private readonly node: NodeState,
  ) {}

  /**
   * @param insist when another node holds the guard, make it look once more
   * @returns the term, or null when another node holds the guard
   */
  async acquire(insist: boolean): Promise<string | null> {
    const { db, tables } = this.store;
    const ask = () => acquireGuard(db, tables, this.name, this.node.id, insist);
    let answer = await ask();
    if (!answer) {
      await ensureConfig(db, tables, this.name);
      answer = await ask();
    }
    if (!answer) return null;
    this.node.batchSize = answer.batchSize;
    this.node.leaseMs = answer.leaseMs;
    return answer.term;
  }

  /** @returns true when somebody asked for another look: the guard is still held then */
  async release(term: string): Promise<boolean> {
    const { db, tables } = this.store;
    return (await releaseGuard(db, tables, this.name, this.node.id, term)) === 'again';
  }

  /** After a pass that failed. */
  async drop(term: string): Promise<void> {
    const { db, tables } = this.store;
    await dropGuard(db, tables, this.name, this.node.id, term);
  }
}
