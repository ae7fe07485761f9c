/** Something that runs beside the jobs of a node, such as a timer, a connection or a thread. */
export interface Background {
  /** Idempotent, and safe if it was never started. Resolves when all its work has ended. Never rejects. */
  stop(): Promise<void>;
}
