import { BildadConfigError } from '../job/errors.js';
import type { JsonValue } from '../job/json.js';
import type { Captured } from '../context/envelope.js';
import type { ContextContract } from '../context/context-contract.js';
import type { Store } from '../database/store.js';
import type { Claim, ClaimPart } from './claim/claim.sql.js';
import type { EntryReference, NewEntry } from './enqueue/enqueue.sql.js';
import type { RegisteredHandler } from './handler-registry.js';
import type { JobProcess } from './run/job-process.js';

/** Removes a registration. Calling it again has no effect. */
export type Unsubscribe = () => void;

/**
 * A named list of registrations. `active` is what the engine calls or reads: it is undefined while
 * nothing is registered, so an unused point costs one comparison. It is rebuilt at each
 * registration and never changed in place.
 */
export class ExtensionPoint<T, Active = readonly T[]> {
  private readonly byName = new Map<string, T>();
  active: Active | undefined;

  /** @param combine makes `active` from the registrations, in the order of their registration */
  constructor(
    private readonly name: string,
    private readonly combine: (
      registered: readonly T[],
      named: readonly (readonly [string, T])[],
    ) => Active,
  ) {}

  /** @throws BildadConfigError when the point has a registration of this name */
  register(name: string, registered: T): Unsubscribe {
    if (this.byName.has(name))
      throw new BildadConfigError(
        `extension point ${this.name}`,
        'already has a registration of this name',
        { got: name },
      );
    this.byName.set(name, registered);
    this.rebuild();
    return () => {
      if (this.byName.get(name) !== registered) return;
      this.byName.delete(name);
      this.rebuild();
    };
  }

  private rebuild(): void {
    const registered = [...this.byName.values()];
    this.active = registered.length > 0 ? this.combine(registered, [...this.byName]) : undefined;
  }
}

/**
 * Captures a part of the environment of an enqueue call. It travels with the job, in the envelope
 * of its context.
 */
export interface Carrier {
  /** Its property in `Envelope.carried`; the name it is registered under. */
  readonly name: string;
  /**
   * Called once for each call that enqueues.
   * @returns the captured value; undefined: nothing travels
   */
  readonly capture: () => JsonValue | undefined;
  /**
   * The value describes the call and not the job: it is readable beside an encrypted context, and a
   * retry by hand captures it again. Default: the value is encrypted with the context, and a retry
   * keeps it.
   */
  readonly ofCall?: boolean;
}

/** A call that enqueues. */
export interface EnqueueCallFacts {
  templateCode: string;
  /** `enqueueJobs`: many jobs in one call. */
  bulk: boolean;
}

/**
 * The result of a call that enqueues: an entry, or one for each context. `deduplicated`: the job
 * existed already.
 */
export type Enqueued = { jobRunIdentifier: string; deduplicated?: boolean };

/**
 * Wraps a call that enqueues, from the lookup of its template to its result; in a caller's
 * transaction the result precedes the commit. Must call `next` once; `next` rejects when nothing
 * was enqueued.
 */
export type AroundEnqueue = <T extends Enqueued | readonly Enqueued[]>(
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
 * Called with new entries of one template once they are committed: at once, or after the caller's
 * transaction. Not called for entries of other processes, and not where the process ends first. A
 * throw is reported.
 */
export type AfterEnqueueCommit = (templateCode: string, entries: readonly EntryReference[]) => void;

/** Called once per claim, not per job. @returns undefined to leave this claim as it is */
export type ClaimContribution = () => ClaimPart | undefined;

/** Called after each claim of due entries, with the duration of its statement. Must not throw. */
export type AfterClaim = (claims: readonly Claim[], tookMs: number) => void;

/**
 * Wraps the work of a handler in the process that runs it: decoding the context, resolving the
 * instance, calling the method. `process.run` is the run; after `next` the process holds the
 * outcome. Must call `next` once; `next` never rejects.
 */
export type AroundRun = (
  process: JobProcess,
  handler: RegisteredHandler<ContextContract>,
  next: () => Promise<void>,
) => Promise<void>;

export interface OnFinish {
  /**
   * A SQL function that is called with the runs that end, in the statement that ends them, whatever
   * the way: `f(run_ids bigint[], entry_ids bigint[], outcomes text[], fates text[])`. A fate is
   * what happened to the entry: removed, reopened or kept. Its name has the schema, quoted as in
   * SQL, and is not overloaded. The function runs with planner settings that avoid sequential
   * scans. If it fails, the runs do not end, and the end is tried again.
   */
  readonly sqlFunction: string;
}

/**
 * Background work that one node of an engine does at a time, under the guard of the engine's pass.
 */
export interface PassStep {
  /** Unique: also the key of its times in the engine's row, and its name in `engine.error`. */
  readonly name: string;
  /**
   * Milliseconds from one run to the next on any node, by the database's clock. 0: in each pass.
   */
  readonly every: number;
  /**
   * A step that throws is reported and does not stop the others.
   * @returns 'more' to run in the next pass too
   */
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
 * Called once per renewal of the run leases.
 * @returns the fact that the node's row stores under this name
 */
export type NodeFactsSource = () => JsonValue | undefined;

const list = <T>(registered: readonly T[]): readonly T[] => registered;

const nestRuns = (hooks: readonly AroundRun[]): AroundRun =>
  hooks.reduceRight(
    (inner, outer) => (process, handler, next) =>
      outer(process, handler, () => inner(process, handler, next)),
  );

const nestEnqueues = (hooks: readonly AroundEnqueue[]): AroundEnqueue =>
  hooks.reduceRight((inner, outer) => (call, next) => outer(call, () => inner(call, next)));

/** Where features register with an engine. The engine itself names no feature. */
export class ExtensionPoints {
  /** Data captured at enqueue, by name. */
  readonly carriers = new ExtensionPoint<Carrier>('carriers', list);
  /** The first registration is the outermost. */
  readonly aroundEnqueue = new ExtensionPoint<AroundEnqueue, AroundEnqueue>(
    'aroundEnqueue',
    nestEnqueues,
  );
  readonly beforeEnqueue = new ExtensionPoint<BeforeEnqueue>('beforeEnqueue', list);
  readonly afterEnqueueCommit = new ExtensionPoint<AfterEnqueueCommit>('afterEnqueueCommit', list);
  readonly claimContributions = new ExtensionPoint<ClaimContribution>('claimContributions', list);
  readonly afterClaim = new ExtensionPoint<AfterClaim>('afterClaim', list);
  /** The first registration is the outermost. */
  readonly aroundRun = new ExtensionPoint<AroundRun, AroundRun>('aroundRun', nestRuns);
  readonly onFinish = new ExtensionPoint<OnFinish, readonly string[]>('onFinish', (hooks) =>
    hooks.map(({ sqlFunction }) => sqlFunction),
  );
  readonly passSteps = new ExtensionPoint<PassStep>('passSteps', list);
  readonly nodeFacts = new ExtensionPoint<
    NodeFactsSource,
    readonly (readonly [string, NodeFactsSource])[]
  >('nodeFacts', (_sources, named) => named);

  /** The facts that features report of this node. Null: nothing is registered. */
  readNodeFacts(): Record<string, JsonValue> | null {
    const { active } = this.nodeFacts;
    if (!active) return null;
    const facts: Record<string, JsonValue> = {};
    for (const [name, read] of active) {
      const value = read();
      if (value !== undefined) facts[name] = value;
    }
    return facts;
  }

  /**
   * The values that travel with a job enqueued now; undefined: none. Must be called before the
   * caller awaits anything.
   * @throws what a carrier throws
   */
  captureCarried(): Captured | undefined {
    const { active } = this.carriers;
    return active ? capture(active) : undefined;
  }

  /** The same for a retry by hand. @param carried the values that travelled with the first run */
  recaptureCarried(carried: Record<string, JsonValue> | undefined): Captured | undefined {
    const ofCall = (this.carriers.active ?? []).filter((carrier) => carrier.ofCall);
    const captured = capture(ofCall);
    if (!carried) return captured;
    const names = new Set(ofCall.map(({ name }) => name));
    const kept = Object.entries(carried).filter(([name]) => !names.has(name));
    if (kept.length === 0) return captured;
    return { ...captured, ofJob: Object.fromEntries(kept) };
  }
}

function capture(carriers: readonly Carrier[]): Captured | undefined {
  let captured: Captured | undefined;
  for (const { name, capture, ofCall } of carriers) {
    const value = capture();
    if (value === undefined) continue;
    const part = ofCall ? 'ofCall' : 'ofJob';
    captured = { ...captured, [part]: { ...captured?.[part], [name]: value } };
  }
  return captured;
}
