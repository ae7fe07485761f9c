/** Statements that were sent and are not answered yet. */
export class Answers {
  /** By `performance.now()`, the oldest first. */
  private readonly sent = new Set<{ at: number }>();

  /** For how long the oldest of them has been waiting, in ms. */
  get waitingMs(): number {
    for (const { at } of this.sent) return performance.now() - at;
    return 0;
  }

  async to<T>(statement: Promise<T>): Promise<T> {
    const sent = { at: performance.now() };
    this.sent.add(sent);
    try {
      return await statement;
    } finally {
      this.sent.delete(sent);
    }
  }
}
