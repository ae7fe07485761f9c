import { hostname } from 'node:os';
import { v7 as uuidv7 } from 'uuid';

/** This incarnation of this process, and what the config row said last. */
export class NodeState {
  leaseMs = 15_000;
  batchSize = 1_000;
  /** The engine runs here: before that nothing is claimed, for nothing would renew its lease. */
  started = false;
  /** The node has begun to stop: it claims nothing. */
  closing = false;
  /** The tables were upgraded beyond what this package can work with: the node claims nothing. */
  outdated = false;
  /** This incarnation is over, or must take itself to be: it claims nothing until it begins anew. */
  fenced = false;
  /** How late the event loop was at its last turn, in milliseconds. */
  lagMs = 0;
  /** When the database last renewed the leases of this node's runs, by `performance.now()`; undefined before the first time. */
  renewedAt: number | undefined;
  /** Whether the database is sure to hold this incarnation for alive. Asked for each job: to be cheap. */
  isTrusted: () => boolean = () => true;
  private current = newId();

  /** Never used again, not even by a process of the same host and pid. */
  get id(): string {
    return this.current;
  }

  /** It may claim, and launch what it has claimed. */
  get accepting(): boolean {
    return this.started && !this.closing && !this.outdated && !this.fenced && this.isTrusted();
  }

  /** The one door to another id: what was claimed under the old one is this node's no more. */
  startNewIncarnation(): void {
    this.current = newId();
  }
}

const newId = () => `${hostname()}/${process.pid}/${uuidv7()}`;
