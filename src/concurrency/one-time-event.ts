type Listener<T> = (value: T) => void;

/** An event that happens at most once. Its promise is created lazily. */
export class OneTimeEvent<T> {
  /** Most events have one listener, and need no list. */
  private listener: Listener<T> | undefined;
  private moreListeners: Listener<T>[] | undefined;
  private value: T | undefined;
  private hasFired = false;

  get happened(): boolean {
    return this.hasFired;
  }

  /** Only the first call has an effect. */
  fire(value: T): void {
    if (this.hasFired) return;
    this.hasFired = true;
    this.value = value;
    const { listener, moreListeners } = this;
    this.listener = undefined;
    this.moreListeners = undefined;
    listener?.(value);
    if (moreListeners) for (const one of moreListeners) one(value);
  }

  /** Calls the listener when the event happens, or at once if it has happened. It must not throw. */
  listen(listener: Listener<T>): void {
    if (this.hasFired) listener(this.value as T);
    else if (!this.listener) this.listener = listener;
    else if (this.moreListeners) this.moreListeners.push(listener);
    else this.moreListeners = [listener];
  }

  get promise(): Promise<T> {
    return new Promise((resolve) => this.listen(resolve));
  }
}
