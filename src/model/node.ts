import { hostname } from 'node:os';
import { v7 as uuidv7 } from 'uuid';

/** This incarnation of this process, and what the config row said last. */
export class NodeState {
  /** Never used again, not even by a process of the same host and pid. */
  readonly id = `${hostname()}/${process.pid}/${uuidv7()}`;
  leaseMs = 15_000;
  batchSize = 1_000;
  /** The node has begun to stop: it claims nothing. */
  closing = false;
  /** The tables were upgraded beyond what this package can work with: the node claims nothing. */
  outdated = false;
}
