import type { JsonValue } from '../job/json.js';
import type { ContextContract } from '../context/context-contract.js';
import type { Store } from '../database/store.js';
import type { EntryReference, NewEntry } from './enqueue/enqueue.sql.js';
import type { RegisteredHandler } from './handler-registry.js';
import type { JobProcess } from './run/job-process.js';

/** Captures something of what an enqueue happens in. It travels with the job, in the envelope of its context. */
export interface Carrier {
  /** Unique: its property in `Envelope.carried`. */
  readonly name: string;
  /** Called for each call that enqueues. @returns what is to travel along; undefined: nothing */
  readonly capture: () => JsonValue | undefined;
  /**
   * It says of the call rather than of the job: it can be read beside an encrypted context, and is captured anew where a
   * job is done again. Default: it is encrypted with the context, and stays what it was.
   */
  readonly ofCall?: boolean;
}

/** What is to travel with a job. */
export interface Captured {
  ofCall?: Record<string, JsonValue>;
  ofJob?: Record<string, JsonValue>;
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

/** An entry that is about to be inserted. */
export interface PreparedEntry {
  readonly templateCode: string;
  /** Its columns; they may be changed. Its context is not in its envelope yet. */
  readonly entry: NewEntry;
  /** Data that travels in the envelope of its context; it may be replaced. */
  captured: Captured | undefined;
}

/** Called for each entry, when its options and its context are valid. A throw refuses the call. */
export type BeforeEnqueue = (prepared: PreparedEntry) => void;

/**
 * Called with new entries of one template once they are committed: at once, or after the caller's transaction. Not
 * called for entries of other processes, and not where the process ends first. A throw is reported.
 */
export type AfterEnqueueCommit = (templateCode: string, entries: readonly EntryReference[]) => void;

/** Background work that one node of an engine does at a time, under the guard of the engine's pass. */
export interface PassStep {
  /** Unique: also the key of its times in the engine's row, and its name in `engine.error`. */
  readonly name: string;
  /** Milliseconds from one run to the next on any node, by the database's clock. 0: in each pass. */
  readonly every: number;
  /** A step that throws is reported and does not stop the others. @returns 'more' to run in the next pass too */
  run(pass: Pass): Promise<'more' | void>;
}

export interface Pass {
  readonly db: Store['db'];
  /** Fencing number of the pass. */
  readonly term: string;
  /** When the step should leave the rest to the next pass, by `performance.now()`. */
  readonly deadline: number;
}

/**
 * What a feature adds to one claim, as data. Aliases: `e` is the queue entry. Parameters are numbered from `$1` in
 * each fragment.
 */
export interface ClaimPart {
  /** A condition on the entries that may be claimed. */
  readonly where?: string;
  /** Values of each claimed entry, by name, for `Claim.columns`. */
  readonly columns?: Readonly<Record<string, string>>;
  readonly parameters?: readonly unknown[];
}

/** Called once per claim, not per job. @returns undefined to leave this claim as it is */
export type ClaimContribution = () => ClaimPart | undefined;

/** Called once per renewal of the run leases. @returns what the node's row says under this name */
export type NodeFactsSource = () => JsonValue | undefined;

/** Where capabilities plug in without touching the path: what nobody uses costs a comparison. */
export class Seams {
  private carriers: readonly Carrier[] = [];
  private hook: RunHook | undefined;
  /** Undefined for nearly everybody: then nothing is made for it. */
  enqueueHook: EnqueueHook | undefined;
  beforeEnqueue: readonly BeforeEnqueue[] = [];
  afterEnqueueCommit: readonly AfterEnqueueCommit[] = [];
  /** In the order they were added. */
  passSteps: readonly PassStep[] = [];
  claimContributions: readonly ClaimContribution[] = [];
  private nodeFactsSources: ReadonlyMap<string, NodeFactsSource> = new Map();

  /** @returns how to remove the hook */
  addBeforeEnqueue(hook: BeforeEnqueue): () => void {
    this.beforeEnqueue = [...this.beforeEnqueue, hook];
    return () => {
      this.beforeEnqueue = this.beforeEnqueue.filter((other) => other !== hook);
    };
  }

  /** @returns how to remove the hook */
  addAfterEnqueueCommit(hook: AfterEnqueueCommit): () => void {
    this.afterEnqueueCommit = [...this.afterEnqueueCommit, hook];
    return () => {
      this.afterEnqueueCommit = this.afterEnqueueCommit.filter((other) => other !== hook);
    };
  }

  /** @returns how to remove the step */
  addPassStep(step: PassStep): () => void {
    this.passSteps = [...this.passSteps, step];
    return () => {
      this.passSteps = this.passSteps.filter((other) => other !== step);
    };
  }

  /** @returns how to remove the contribution */
  addClaimContribution(contribution: ClaimContribution): () => void {
    this.claimContributions = [...this.claimContributions, contribution];
    return () => {
      this.claimContributions = this.claimContributions.filter((other) => other !== contribution);
    };
  }

  /** @returns how to remove the facts */
  addNodeFacts(name: string, source: NodeFactsSource): () => void {
    this.nodeFactsSources = new Map([...this.nodeFactsSources, [name, source]]);
    return () => {
      this.nodeFactsSources = new Map(
        [...this.nodeFactsSources].filter(([, other]) => other !== source),
      );
    };
  }

  /** What features report of this node. Null: nothing is registered. */
  nodeFacts(): Record<string, JsonValue> | null {
    if (this.nodeFactsSources.size === 0) return null;
    const facts: Record<string, JsonValue> = {};
    for (const [name, source] of this.nodeFactsSources) {
      const value = source();
      if (value !== undefined) facts[name] = value;
    }
    return facts;
  }

  carry(carrier: Carrier): void {
    this.carriers = [...this.carriers, carrier];
  }

  /** The first one is the outermost. */
  onRun(hook: RunHook): void {
    const outer = this.hook;
    this.hook = outer
      ? (process, handler, next) => outer(process, handler, () => hook(process, handler, next))
      : hook;
  }

  /** The first one is the outermost. */
  onEnqueue(hook: EnqueueHook): void {
    const outer = this.enqueueHook;
    this.enqueueHook = outer ? (call, next) => outer(call, () => hook(call, next)) : hook;
  }

  /**
   * What is carried by a job that is enqueued now; undefined: nothing. To be called before anything is awaited.
   * @throws what a carrier throws
   */
  captured(): Captured | undefined {
    if (this.carriers.length === 0) return undefined;
    return this.capture(this.carriers);
  }

  /** The same of a job that is done again. @param carried with the run of before */
  capturedAgain(carried: Record<string, JsonValue> | undefined): Captured | undefined {
    const ofCall = this.carriers.filter((carrier) => carrier.ofCall);
    const captured = this.capture(ofCall);
    if (!carried) return captured;
    const names = new Set(ofCall.map(({ name }) => name));
    const kept = Object.entries(carried).filter(([name]) => !names.has(name));
    if (kept.length === 0) return captured;
    return { ...captured, ofJob: Object.fromEntries(kept) };
  }

  private capture(carriers: readonly Carrier[]): Captured | undefined {
    let captured: Captured | undefined;
    for (const { name, capture, ofCall } of carriers) {
      const value = capture();
      if (value === undefined) continue;
      const part = ofCall ? 'ofCall' : 'ofJob';
      captured = {
        ...captured,
        [part]: { ...captured?.[part], [name]: value },
      };
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
