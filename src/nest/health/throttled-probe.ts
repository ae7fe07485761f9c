import { waitAtMost } from '../../concurrency/timers.js';

/** Of the time, the part that looking may take. */
const SHARE = 50;

/** Something that is dear to find out: one looks for all who ask, and seldom where that takes long. */
export class Looks<T> {
  private lookAt = -Infinity;
  private looking: Promise<void> | undefined;
  private found: T | undefined;
  private forgotten = false;

  constructor(
    private readonly find: () => Promise<T>,
    /** How old an answer may be. */
    private readonly everyMs: number,
  ) {}

  /** What was found lately; undefined where that failed, or takes longer than `patienceMs`. Never rejects. */
  async latest(patienceMs: number): Promise<T | undefined> {
    if (!this.looking && performance.now() >= this.lookAt) this.looking = this.look();
    if (this.looking) await waitAtMost(patienceMs, this.looking);
    return this.found;
  }

  /** What was found, and what one took that is under way, counts no more: the next who asks looks. */
  forget(): void {
    this.found = undefined;
    this.lookAt = -Infinity;
    this.forgotten = true;
  }

  private async look(): Promise<void> {
    const began = performance.now();
    this.forgotten = false;
    try {
      this.found = await this.find();
    } catch {
      // That the database is away is told elsewhere.
      this.found = undefined;
    }
    const tookMs = performance.now() - began;
    if (!this.forgotten) this.lookAt = performance.now() + Math.max(this.everyMs, tookMs * SHARE);
    this.looking = undefined;
  }
}
