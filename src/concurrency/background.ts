/** Something that runs beside the jobs of a node, such as a timer, a connection or a thread. */
export interface Background {
  /** Idempotent, and safe if it was never started. Nothing of it is left running then. Never rejects. */
  stop(): Promise<void>;
}
