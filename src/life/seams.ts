import type { JsonValue } from '../model/json.js';
import type { ContextContract } from '../policy/context.js';
import type { RegisteredHandler } from '../runner/handler-registry.js';
import type { JobProcess } from '../runner/job-process.js';

/** Captures something of what an enqueue happens in. It travels with the job, in the envelope of its context. */
export interface Carrier {
  /** Unique: its property in `Envelope.carried`. */
  readonly name: string;
  /** Called for each call that enqueues. @returns what is to travel along; undefined: nothing */
  readonly capture: () => JsonValue | undefined;
}

/**
 * Around all that a handler does where it runs: its context is decoded, its instance resolved, its method called. To be
 * found on the process: `run`, and after `next` how it settled. `next` never rejects, and has to be called once.
 */
export type RunHook = (
  process: JobProcess,
  handler: RegisteredHandler<ContextContract>,
  next: () => Promise<void>,
) => Promise<void>;

/** A call that puts jobs in. */
export interface EnqueueCallFacts {
  templateCode: string;
  /** Many at once. */
  bulk: boolean;
}

/** What a call answers with: the entry that was put in or is there already, or one for each context. */
export type Enqueued = { jobRunIdentifier: string; deduplicated?: boolean };

/**
 * Around a call that enqueues, from before its template is looked up until it is answered; in a caller's transaction that
 * is before the commit. `next` has to be called once, and rejects where nothing was enqueued.
 */
export type EnqueueHook = <T extends Enqueued | readonly Enqueued[]>(
  call: EnqueueCallFacts,
  next: () => Promise<T>,
) => Promise<T>;

/** Where capabilities plug in without touching the path: what nobody uses costs a comparison. */
export class Seams {
  private carriers: readonly Carrier[] = [];
  private hook: RunHook | undefined;
  /** Undefined for nearly everybody: then nothing is made for it. */
  enqueueHook: EnqueueHook | undefined;

  carry(carrier: Carrier): void {
    this.carriers = [...this.carriers, carrier];
  }

  /** The first one is the outermost. */
  onRun(hook: RunHook): void {
    const outer = this.hook;
    this.hook = outer
      ? (process, handler, next) =>
          outer(process, handler, () => hook(process, handler, next))
      : hook;
  }

  /** The first one is the outermost. */
  onEnqueue(hook: EnqueueHook): void {
    const outer = this.enqueueHook;
    this.enqueueHook = outer
      ? (call, next) => outer(call, () => hook(call, next))
      : hook;
  }

  /** What is carried by a job that is enqueued now. */
  captured(): Record<string, JsonValue> | undefined {
    if (this.carriers.length === 0) return undefined;
    let captured: Record<string, JsonValue> | undefined;
    for (const { name, capture } of this.carriers) {
      const value = capture();
      if (value !== undefined) captured = { ...captured, [name]: value };
    }
    return captured;
  }

  around(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    next: () => Promise<void>,
  ): Promise<void> {
    return this.hook ? this.hook(process, handler, next) : next();
  }
}
