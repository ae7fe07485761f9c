type Listener<T> = (value: T) => void;

/** Something that happens once. It costs a promise only for who asks for one: a job that runs for microseconds has many such moments. */
export class Once<T> {
  /** Mostly there is one, and no list is needed. */
  private listener: Listener<T> | undefined;
  private others: Listener<T>[] | undefined;
  private value: T | undefined;
  private over = false;

  get happened(): boolean {
    return this.over;
  }

  /** Only the first call counts. */
  happen(value: T): void {
    if (this.over) return;
    this.over = true;
    this.value = value;
    const { listener, others } = this;
    this.listener = undefined;
    this.others = undefined;
    listener?.(value);
    if (others) for (const other of others) other(value);
  }

  /** Calls at once if it has happened already. A listener must not throw. */
  whenever(listener: Listener<T>): void {
    if (this.over) listener(this.value as T);
    else if (!this.listener) this.listener = listener;
    else if (this.others) this.others.push(listener);
    else this.others = [listener];
  }

  get promise(): Promise<T> {
    return new Promise((resolve) => this.whenever(resolve));
  }
}
