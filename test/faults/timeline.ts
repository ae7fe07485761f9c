import type { History } from './history.js';
import type { Line } from './ledger.js';
import type { LockedRows } from './row-locks.js';
import { isContention } from './schedule.js';
import { common, touches, union, type Window } from './windows.js';

/** The lines that say this. */
type Of<W extends Line['what'], L = Line> = L extends { what: string }
  ? W extends L['what']
    ? L
    : never
  : never;

/** What a handler did for one run, on the ledgers' clock. */
export interface Handling {
  id: string;
  run: string;
  by: string;
  kind: string;
  cooperative: boolean;
  from: number;
  /** Its end, that of its process, or that of the history. */
  to: number;
  how: 'returned' | 'threw' | 'aborted' | 'cut';
}

/** A fault beside which work goes on, and the rows that it has locked. */
export interface Contention extends LockedRows {
  kind: string;
  target: string;
  window: Window;
}

/** The history, put in order for the checks. */
export class Timeline {
  readonly end: number;
  readonly handlings: Handling[];
  /** Whatever disturbs a worker (its name without the incarnation) or the clients, each with a moment after it. */
  private readonly disturbed = new Map<string, Window[]>();
  /** The same by the nemesis alone. */
  private readonly faulted: ReadonlyMap<string, Window[]>;
  readonly database: Window[];
  /** Old snapshots, long links, and locks of rows with the rows. */
  readonly contention: Contention[];
  /** When each process's event loop stood still, by its name without the incarnation. */
  private readonly stalls = new Map<string, Window[]>();
  /** Processes, by incarnation. */
  readonly exits = new Map<string, Of<'exit'>>();

  constructor(readonly history: History) {
    const { lines } = history;
    this.end = lines.at(-1)?.at ?? 0;
    for (const exit of this.all('exit')) this.exits.set(exit.worker, this.attributed(exit));
    this.handlings = this.readHandlings();
    const faults = this.faults();
    this.database = union(
      faults.filter(({ target }) => target === 'database').map(({ window }) => window),
    );
    this.contention = this.readContention();
    for (const { target, window } of faults) this.disturb(target, window);
    for (const { by, at, ms } of this.all('stalled')) {
      const name = memberOf(by);
      this.stalls.set(name, [...(this.stalls.get(name) ?? []), [at - ms, at]]);
    }
    this.faulted = new Map(this.disturbed);
    for (const { worker, at } of this.all('spawn'))
      this.disturb(memberOf(worker), [at, this.readyAt(worker)]);
    for (const { by, at, ms } of this.all('blocks')) this.disturb(memberOf(by), [at, at + ms]);
    for (const { worker, at } of this.exits.values()) this.disturb(memberOf(worker), [at, at]);
  }

  all<W extends Line['what']>(what: W): Of<W>[] {
    return this.history.lines.filter((line): line is Of<W> & Line => line.what === what);
  }

  /** When a process could not do what it should, and `after` it. */
  disturbances(by: string, after: number): Window[] {
    const own = this.disturbed.get(memberOf(by)) ?? [];
    return union([...own, ...this.database].map(([from, to]): Window => [from, to + after]));
  }

  /** The same, with the times in which the process itself or the lab had no processor. */
  disturbancesOrStalls(by: string, after: number): Window[] {
    const stalls = [memberOf(by), 'lab'].flatMap((name) => this.stalls.get(name) ?? []);
    return union([
      ...this.disturbances(by, after),
      ...stalls.map(([from, to]): Window => [from, to + after]),
    ]);
  }

  /** When the link of a process to the database was long. */
  longLinks(by: string): Window[] {
    return this.contention
      .filter(({ kind, target }) => kind === 'distance' && target === memberOf(by))
      .map(({ window }) => window);
  }

  /** When rows of a job were locked, by its name, the code of its template or its key. */
  lockedWindows({ id, code, key }: { id: string; code?: string; key?: string }): Window[] {
    return this.contention
      .filter(
        ({ jobs, templates, keys }) =>
          jobs.includes(id) ||
          (code !== undefined && templates.includes(code)) ||
          (key !== undefined && keys.includes(key)),
      )
      .map(({ window }) => window);
  }

  /** Whether the nemesis was at it, or at the database. */
  wasFaulted(by: string, window: Window): boolean {
    const own = this.faulted.get(memberOf(by)) ?? [];
    return touches(window, [...own, ...this.database]);
  }

  /** When no worker was free of disturbances, and `after` it. */
  nobodyWell(after: number): Window[] {
    const workers = new Set(
      this.all('spawn')
        .map(({ worker }) => memberOf(worker))
        .filter((name) => name !== 'client'),
    );
    return common([...workers].map((worker) => this.disturbances(worker, after)));
  }

  /** When the guard was held by a node that did not let it go. */
  guardStuck(longerThan: number): Window[] {
    const { guard } = this.history;
    return guard.flatMap((row, index): Window[] => {
      if (row.expiresAt === null) return [];
      const until = Math.min(row.expiresAt, guard[index + 1]?.at ?? row.expiresAt);
      return until - row.at > longerThan ? [[row.at, until]] : [];
    });
  }

  /** One that ended itself on purpose is not one that the engine ended. */
  private attributed(exit: Of<'exit'>): Of<'exit'> {
    const poisoned = this.all('poison').some(({ by, at }) => by === exit.worker && at <= exit.at);
    return exit.cause === 'itself' && poisoned ? { ...exit, cause: 'poison' } : exit;
  }

  private readyAt(worker: string): number {
    const ready = this.all('ready').find(({ by }) => by === worker);
    return ready?.at ?? this.exits.get(worker)?.at ?? this.end;
  }

  private disturb(target: string, window: Window): void {
    this.disturbed.set(target, [...(this.disturbed.get(target) ?? []), window]);
  }

  private faults(): { target: string; window: Window }[] {
    const heals = new Map(this.all('heal').map((heal) => [heal.n, heal.at]));
    return this.all('fault')
      .filter(({ kind }) => !isContention(kind) || kind === 'lockNodes')
      .map(({ n, at, target }) => ({ target, window: [at, heals.get(n) ?? this.end] }));
  }

  private readContention(): Contention[] {
    const heals = new Map(this.all('heal').map((heal) => [heal.n, heal.at]));
    const locked = new Map(this.all('locked').map((rows) => [rows.n, rows]));
    return this.all('fault')
      .filter(({ kind }) => isContention(kind))
      .map(({ n, at, kind, target }) => ({
        kind,
        target,
        window: [at, heals.get(n) ?? this.end],
        ...(locked.get(n) ?? { jobs: [], templates: [], keys: [] }),
      }));
  }

  private readHandlings(): Handling[] {
    const ends = new Map(this.all('end').map((end) => [`${end.by} ${end.run}`, end]));
    return this.all('start').map(({ at, by, id, run, kind, cooperative }) => {
      const end = ends.get(`${by} ${run}`);
      return {
        id,
        run,
        by,
        kind,
        cooperative,
        from: at,
        to: end?.at ?? this.exits.get(by)?.at ?? this.end,
        how: end?.how ?? 'cut',
      };
    });
  }
}

/** `w2` of `w2.7`, its seventh process. */
export const memberOf = (by: string) => by.replace(/\.\d+$/, '');

export function grouped<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(key(item));
    if (group) group.push(item);
    else groups.set(key(item), [item]);
  }
  return groups;
}
