/** Who asks says so again three times as often. */
const ASKED_MS = 15_000;

/** Jobs that somebody on another node waits for, or watches: as long as he goes on saying so. */
export class AskedFor {
  /** By identifier until when, the oldest first. */
  private readonly until = new Map<string, number>();

  /** @param most the oldest are forgotten beyond that */
  constructor(private readonly most: number) {}

  add(identifiers: string[]): void {
    const until = performance.now() + ASKED_MS;
    for (const identifier of identifiers) {
      this.until.delete(identifier);
      this.until.set(identifier, until);
    }
    this.forgetOld();
  }

  has(identifier: string): boolean {
    const until = this.until.get(identifier);
    return until !== undefined && until > performance.now();
  }

  /** @returns whether it was there */
  delete(identifier: string): boolean {
    return this.until.delete(identifier);
  }

  get isEmpty(): boolean {
    this.forgetOld();
    return this.until.size === 0;
  }

  clear(): void {
    this.until.clear();
  }

  private forgetOld(): void {
    const now = performance.now();
    for (const [identifier, until] of this.until) {
      if (until > now && this.until.size <= this.most) return;
      this.until.delete(identifier);
    }
  }
}
