import type { EngineContext } from '../database/engine-context.js';
import { checkVersion } from '../database/migrate.js';
import { SchemaVersionError } from '../job/errors.js';

/** Each check takes two statements that read one page each. */
const CHECK_INTERVAL_MS = 5_000;

/** Detects at run time that the tables were upgraded to a version that this package cannot use. */
export class SchemaVersionCheck {
  private checkedAt: number;

  constructor(
    private readonly engine: EngineContext,
    private readonly now = () => performance.now(),
  ) {
    // The boot has checked them.
    this.checkedAt = now();
  }

  /** Whether this node may work. Checks again if the last check is older than five seconds. */
  async isUsable(): Promise<boolean> {
    const { node, events } = this.engine;
    if (this.now() - this.checkedAt >= CHECK_INTERVAL_MS) {
      const error = await this.findProblem();
      this.checkedAt = this.now();
      const changed = node.outdated !== (error !== null);
      node.outdated = error !== null;
      if (changed) events.emit('engine.outdated', { error });
    }
    return !node.outdated;
  }

  private async findProblem(): Promise<SchemaVersionError | null> {
    const { db, tables } = this.engine.store;
    try {
      await checkVersion(db, tables);
      return null;
    } catch (error) {
      if (error instanceof SchemaVersionError) return error;
      throw error;
    }
  }
}
