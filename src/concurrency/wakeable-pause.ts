import { runAfter } from './timers.js';

/** A pause that `wake` ends at once, also if it is called before the pause begins. */
export class WakeablePause {
  private isAwake = false;
  private end: (() => void) | undefined;

  readonly wake = (): void => {
    this.isAwake = true;
    this.end?.();
  };

  /** Forgets earlier calls of `wake`. */
  reset(): void {
    this.isAwake = false;
  }

  async sleep(ms: number): Promise<void> {
    if (this.isAwake) return;
    await new Promise<void>((resolve) => {
      const cancel = runAfter(ms, resolve);
      this.end = () => {
        cancel();
        resolve();
      };
    });
    this.end = undefined;
  }
}
