import type { Store } from '../life/store.js';
import type { JobEvents } from '../model/events.js';
import type { NodeState } from '../model/node.js';
import { notifyEnds } from '../store/end-notices.store.js';

/** Who waits says so again three times as often. */
const AWAITED_MS = 15_000;
const MOST_AWAITED = 100_000;

/** Tells other processes of the ends that they wait for. Where nobody waits, nobody listens to this node's ends. */
export class ToldEnds {
  /** By identifier until when, the oldest first. */
  private readonly awaited = new Map<string, number>();
  private stopListening: (() => void) | undefined;
  private over: string[] = [];
  private telling: Promise<void> | undefined;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
  ) {}

  /** Somebody elsewhere waits for these. */
  expect(identifiers: string[]): void {
    const now = performance.now();
    for (const identifier of identifiers) {
      this.awaited.delete(identifier);
      this.awaited.set(identifier, now + AWAITED_MS);
    }
    for (const [identifier, until] of this.awaited) {
      if (until > now && this.awaited.size <= MOST_AWAITED) break;
      this.awaited.delete(identifier);
    }
    this.stopListening ??= this.events.on(
      'run.finished',
      ({ jobRunIdentifier, entry }) => {
        if (entry !== 'reopened' && this.awaited.delete(jobRunIdentifier))
          this.tell(jobRunIdentifier);
        if (this.awaited.size === 0) this.listenNoMore();
      },
    );
  }

  /** Resolves when nothing is being told any more. */
  async stop(): Promise<void> {
    this.awaited.clear();
    this.listenNoMore();
    await this.telling;
  }

  private listenNoMore(): void {
    this.stopListening?.();
    this.stopListening = undefined;
  }

  private tell(identifier: string): void {
    this.over.push(identifier);
    this.telling ??= this.tellAll().finally(() => {
      this.telling = undefined;
    });
  }

  /** Never rejects: who waits looks for himself as well. */
  private async tellAll(): Promise<void> {
    const { db, tables } = this.store;
    // Ends that were recorded together come along.
    await Promise.resolve();
    while (this.over.length > 0) {
      const identifiers = this.over.splice(0);
      const notice = { kind: 'over', from: this.node.id, identifiers } as const;
      await notifyEnds(db, tables, notice).catch((error: unknown) =>
        this.events.emit('engine.error', { doing: 'telling of ends', error }),
      );
    }
  }
}
