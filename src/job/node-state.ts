import { hostname } from 'node:os';
import { v7 as uuidv7 } from 'uuid';

/** The state of this incarnation of the node, and the last read values of the config row. */
export class NodeState {
  leaseMs = 15_000;
  batchSize = 1_000;
  /** The engine has started. Before that the node claims nothing, because nothing would renew the leases. */
  started = false;
  /** The node has begun to stop: it claims nothing. */
  closing = false;
  /** The tables were upgraded to a version that this package cannot use: the node claims nothing. */
  outdated = false;
  /** This incarnation has ended, or may have: the node claims nothing until it joins under a new id. */
  fenced = false;
  /** How late the event loop was at its last turn, in milliseconds. */
  lagMs = 0;
  /** When the leases of this node's runs were last renewed (`performance.now()`); undefined before the first renewal. */
  renewedAt: number | undefined;
  /** Whether this incarnation's lease certainly holds. Called for each job, so it must be cheap. */
  isTrusted: () => boolean = () => true;
  private current = newId();

  /** Never used again, not even by a process of the same host and pid. */
  get id(): string {
    return this.current;
  }

  /** The node may claim and launch jobs. */
  get accepting(): boolean {
    return this.started && !this.closing && !this.outdated && !this.fenced && this.isTrusted();
  }

  /** Changes the id. Claims under the old id do not belong to this node any more. */
  startNewIncarnation(): void {
    this.current = newId();
  }
}

const newId = () => `${hostname()}/${process.pid}/${uuidv7()}`;
