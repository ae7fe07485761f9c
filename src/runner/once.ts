/** Something that happens once. It costs a promise only for who asks for one: a job that runs for microseconds has many such moments. */
export class Once<T> {
  private listeners: ((value: T) => void)[] | undefined;
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
    const listeners = this.listeners;
    this.listeners = undefined;
    if (listeners) for (const listener of listeners) listener(value);
  }

  /** Calls at once if it has happened already. A listener must not throw. */
  whenever(listener: (value: T) => void): void {
    if (this.over) listener(this.value as T);
    else if (this.listeners) this.listeners.push(listener);
    else this.listeners = [listener];
  }

  get promise(): Promise<T> {
    return new Promise((resolve) => this.whenever(resolve));
  }
}
