import type { Store } from '../database/store.js';
import { SchemaVersionError } from '../job/errors.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import { checkVersion } from '../database/migrate.js';

/** Two statements that read a page each, so seldom that they cost nothing; a breaking upgrade is noticed by then. */
const EVERY_MS = 5_000;

/** Notices while the node runs that somebody has upgraded the tables beyond what this package can work with. */
export class VersionWatch {
  private lookedAt: number;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly now = () => performance.now(),
  ) {
    // They were checked at boot.
    this.lookedAt = now();
  }

  /** Whether this node may work: looks, if the last look is older than five seconds. */
  async usable(): Promise<boolean> {
    if (this.now() - this.lookedAt >= EVERY_MS) await this.look();
    return !this.node.outdated;
  }

  private async look(): Promise<void> {
    const error = await this.problem();
    this.lookedAt = this.now();
    if (this.node.outdated === (error !== null)) return;
    this.node.outdated = error !== null;
    this.events.emit('engine.outdated', { error });
  }

  private async problem(): Promise<SchemaVersionError | null> {
    const { db, tables } = this.store;
    try {
      await checkVersion(db, tables);
      return null;
    } catch (error) {
      if (error instanceof SchemaVersionError) return error;
      throw error;
    }
  }
}
