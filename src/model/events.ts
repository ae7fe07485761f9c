import type {
  JobContextVersionError,
  JobEncryptionKeyError,
} from './context-errors.js';
import type { SchemaVersionError } from './errors.js';
import type { HostKind } from './isolation.js';
import type { OutcomeKind } from './outcome.js';

interface RunEvent {
  jobRunId: string;
  jobRunIdentifier: string;
  templateCode: string;
  retry: number;
}

export type EntryFate = 'removed' | 'reopened' | 'kept';

/** What the engine tells. Payloads carry identifiers, never a context's values. */
export interface JobEventMap {
  'entry.enqueued': [
    { jobQueueEntryId: string; jobRunIdentifier: string; templateCode: string },
  ];
  /** Its row cannot be run: it was put aside, until it is released or cancelled. */
  'entry.quarantined': [
    { jobQueueEntryId: string; jobRunIdentifier: string; reason: string },
  ];
  /**
   * Claimed here, and put back as it was, for a process that can carry it out: its context is of a newer version, or
   * encrypted with a key that is missing here.
   */
  'entry.putBack': [
    {
      jobQueueEntryId: string;
      jobRunIdentifier: string;
      templateCode: string;
      error: JobContextVersionError | JobEncryptionKeyError;
    },
  ];
  'run.started': [RunEvent];
  'run.progress': [RunEvent & { fraction: number; message?: string }];
  /** The run is DONE in the database. */
  'run.finished': [
    RunEvent & {
      outcome: OutcomeKind;
      entry: EntryFate;
      /** The class of what the handler threw, for `failed` and `failedForGood`. */
      errorName?: string;
    },
  ];
  /** Somebody else had closed the run before: nothing was changed. */
  'run.finishLost': [RunEvent & { outcome: OutcomeKind }];
  /** The handler did not stop within the grace period and goes on, its run is closed. */
  'process.abandoned': [RunEvent & { outcome: OutcomeKind }];
  /** The handler did not stop within the grace period: its thread or process is ended. */
  'process.killed': [RunEvent & { isolation: HostKind }];
  /**
   * A promise of an inline handler was rejected, and nobody handled that: its run fails. `late`: the run
   * had ended before, and stays as it is.
   */
  'process.stray': [RunEvent & { error: unknown; late: boolean }];
  /** The handler of an abandoned process ended at last. */
  'process.ended': [RunEvent];
  /** A pass held the guard under this fencing number. */
  'engine.pass': [
    {
      node: string;
      term: string;
      started: number;
      expired: number;
      errors: number;
    },
  ];
  /** A connection of the engine's was lost, or none could be made: once, until the database is back. */
  'database.lost': [{ error: unknown }];
  /** It answers again, and can be written to. */
  'database.back': [{ awayMs: number }];
  /**
   * The tables were upgraded while this node ran, beyond what its package can work with: it claims nothing, and what
   * runs goes on to its end. `null`: they can be worked with again. Told once each time.
   */
  'engine.outdated': [{ error: SchemaVersionError | null }];
  /** These jobs are due for a minute or more, and no living node can run them: they wait. Told once a minute for each code. */
  'engine.unrunnable': [
    { code: string; active: boolean; count: number; oldestDueAt: Date },
  ];
  /**
   * Whether NOTIFY reaches this node, told when that changes from what it was; from the start it is taken to. While
   * it does not, jobs that other processes enqueue start at the next tick.
   */
  'engine.listening': [{ hears: boolean }];
  /** This node has an id that no node had before, and says that it is alive. */
  'node.joined': [{ node: string }];
  /**
   * This node stops what it runs, and claims nothing until it has joined anew: it could not tell the database that
   * it is alive (`silent`), or somebody has ended it (`declared`).
   */
  'node.fenced': [
    { node: string; why: 'silent' | 'declared'; running: number },
  ];
  /** A pass has found a node dead. `charged`: jobs that it may have died of. */
  'node.lost': [{ node: string; charged: number }];
  /** Something in the background failed; the engine goes on and tries again. */
  'engine.error': [{ doing: string; error: unknown }];
}

type Listener = (payload: never) => void;

/** Hears all events, before their listeners. Must not throw. */
type Tap = (event: keyof JobEventMap, payload: object) => void;

/**
 * Typed events of one engine. A listener that throws is reported, and harms nobody else. The lists are never
 * changed, only replaced: an emitter that copies its list for each event took 0.3 µs a job.
 */
export class JobEvents {
  private readonly listeners = new Map<
    keyof JobEventMap,
    readonly Listener[]
  >();
  private tapped: Tap | undefined;

  /** @internal There is one: the channels of `node:diagnostics_channel`. */
  tap(tap: Tap | undefined): void {
    this.tapped = tap;
  }

  on<E extends keyof JobEventMap>(
    event: E,
    listener: (...payload: JobEventMap[E]) => unknown,
  ): () => void {
    const report = (error: unknown) => {
      if (event !== 'engine.error')
        this.emit('engine.error', { doing: `a listener of ${event}`, error });
    };
    const guarded = (payload: JobEventMap[E][0]) => {
      try {
        const result = (listener as (payload: JobEventMap[E][0]) => unknown)(
          payload,
        );
        if (result instanceof Promise) result.catch(report);
      } catch (error) {
        report(error);
      }
    };
    this.listeners.set(event, [...this.of(event), guarded]);
    return () =>
      void this.listeners.set(
        event,
        this.of(event).filter((one) => one !== guarded),
      );
  }

  emit<E extends keyof JobEventMap>(
    event: E,
    payload: JobEventMap[E][0],
  ): void {
    this.tapped?.(event, payload);
    for (const listener of this.of(event)) listener(payload as never);
  }

  private of(event: keyof JobEventMap): readonly Listener[] {
    return this.listeners.get(event) ?? NOBODY;
  }
}

const NOBODY: readonly Listener[] = [];
