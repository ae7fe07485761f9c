import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import { notifyEnds, type EndNotice } from './completion-notice.sql.js';

/** Tells other nodes of jobs, of those of one turn together. Nothing depends on it: who asked looks for himself as well. */
export class Telling {
  private identifiers = new Set<string>();
  private telling: Promise<void> | undefined;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly kind: EndNotice['kind'],
    /** For who hears that it failed. */
    private readonly doing: string,
  ) {}

  tell(identifier: string): void {
    this.identifiers.add(identifier);
    this.telling ??= this.tellAll().finally(() => {
      this.telling = undefined;
    });
  }

  /** Resolves when nothing is being told any more. */
  async idle(): Promise<void> {
    await this.telling;
  }

  /** Never rejects. */
  private async tellAll(): Promise<void> {
    const { db, tables } = this.store;
    // What was recorded together comes along.
    await Promise.resolve();
    while (this.identifiers.size > 0) {
      const identifiers = [...this.identifiers];
      this.identifiers.clear();
      const notice = { kind: this.kind, from: this.node.id, identifiers };
      await notifyEnds(db, tables, notice).catch((error: unknown) =>
        this.events.emit('engine.error', { doing: this.doing, error }),
      );
    }
  }
}
