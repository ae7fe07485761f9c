import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import { AskedFor } from './interest-registry.js';
import { Telling } from './notification-sender.js';

const MOST_AWAITED = 100_000;

/** Tells other processes of the ends that they wait for. Where nobody waits, nobody listens to this node's ends. */
export class ToldEnds {
  private readonly awaited = new AskedFor(MOST_AWAITED);
  private readonly telling: Telling;
  private stopListening: (() => void) | undefined;

  constructor(
    store: Store,
    private readonly events: JobEvents,
    node: NodeState,
  ) {
    this.telling = new Telling(store, events, node, 'over', 'telling of ends');
  }

  /** Somebody elsewhere waits for these. */
  expect(identifiers: string[]): void {
    this.awaited.add(identifiers);
    this.stopListening ??= this.events.on('run.finished', ({ jobRunIdentifier, entry }) => {
      if (entry !== 'reopened' && this.awaited.delete(jobRunIdentifier))
        this.telling.tell(jobRunIdentifier);
      if (this.awaited.isEmpty) this.listenNoMore();
    });
  }

  /** Resolves when nothing is being told any more. */
  async stop(): Promise<void> {
    this.awaited.clear();
    this.listenNoMore();
    await this.telling.idle();
  }

  private listenNoMore(): void {
    this.stopListening?.();
    this.stopListening = undefined;
  }
}
