/** The last of what came, bounded in number and in size. */
export class Ring<T> {
  readonly items: T[] = [];
  private readonly sizes: number[] = [];
  private size = 0;
  /** How many had to go. */
  dropped = 0;

  constructor(
    private readonly most: number,
    private readonly mostSize: number,
  ) {}

  push(item: T, size: number): void {
    this.items.push(item);
    this.sizes.push(size);
    this.size += size;
    // The newest stays, whatever its size.
    while (this.items.length > 1 && (this.items.length > this.most || this.size > this.mostSize)) {
      this.items.shift();
      this.size -= this.sizes.shift()!;
      this.dropped++;
    }
  }
}
