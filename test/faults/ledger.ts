import { openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { LockedRows } from './row-locks.js';

/** What a process says it did. Written outside the engine and its tables: the truth that they are checked against. */
export type Event =
  /** Workers. `ready`: the engine runs. */
  | { what: 'ready'; pid: number }
  | {
      what: 'start';
      id: string;
      run: string;
      kind: string;
      /** Ends within moments of its signal. */
      cooperative: boolean;
    }
  | { what: 'aborted' | 'effect'; id: string; run: string }
  | {
      what: 'end';
      id: string;
      run: string;
      how: 'returned' | 'threw' | 'aborted';
    }
  /** A handler holds the event loop from here for so long. */
  | { what: 'blocks'; id: string; run: string; ms: number }
  /** A handler ends its own process, on purpose. */
  | { what: 'poison'; id: string; run: string }
  /** The engine says that the end of a run landed, or that somebody else had ended it. */
  | { what: 'landed' | 'lost'; id: string; run: string; outcome: string }
  /** `engine.error`: something in the background failed, and goes on. */
  | { what: 'engineError'; doing: string; error: string; code?: string }
  /** An unhandled rejection or an uncaught exception. The process ends. */
  | { what: 'fatal'; error: string }
  /** `database.lost`: a node takes its database for unreachable. */
  | { what: 'databaseLost'; error: string }
  /** The event loop of a process stood still for so long, until now: the machine was busy, or a handler was. */
  | { what: 'stalled'; ms: number }
  | { what: 'closing' }
  | { what: 'closed'; left: string[] }
  /** Clients. The same identifier is asked for again after `unknown`. */
  | {
      what: 'ask';
      id: string;
      kind: string;
      maxRetries: number;
      /** In a transaction of the client's own, which is rolled back on purpose. */
      transaction?: 'commits' | 'rollsBack';
      /** Enqueued under this unique key. */
      key?: string;
    }
  | {
      what: 'ack' | 'unknown' | 'refused';
      id: string;
      ms: number;
      error?: string;
    }
  /** An operator's deed that landed. */
  | { what: 'operated'; id: string; deed: string }
  /** The lab itself. */
  | { what: 'spawn'; worker: string; pid: number; missing: string | null }
  | {
      what: 'exit';
      worker: string;
      pid: number;
      code: number | string | null;
      /** Ended by the lab, by poison, or by itself. */
      cause: 'killed' | 'terminated' | 'poison' | 'boot' | 'itself';
    }
  /** What the nemesis did, and that it is over. */
  | { what: 'fault'; n: number; kind: string; target: string }
  | { what: 'heal'; n: number; kind: string; target: string }
  /** Rows that fault n has locked. */
  | ({ what: 'locked'; n: number } & LockedRows)
  /** From when an app was told to close to the end of its process. */
  | {
      what: 'close';
      worker: string;
      ms: number;
      deadlineMs: number;
      /** It had to be killed. */
      overdue?: boolean;
    }
  | { what: 'calm' }
  | { what: 'drained'; ms: number; left: number }
  | { what: 'connections'; worker: string; open: number };

/** `at`: milliseconds of CLOCK_MONOTONIC, which all processes of a host share. `by`: the process. */
export type Line = Event & { at: number; by: string };

const NS_PER_MS = 1e6;
export const nowMs = () => Number(process.hrtime.bigint()) / NS_PER_MS;

/** Appends lines to the file of one process. Written at once: what it said survives its SIGKILL. */
export class Ledger {
  private readonly file: number;

  constructor(
    folder: string,
    private readonly by: string,
  ) {
    this.file = openSync(join(folder, `${by}.jsonl`), 'a');
  }

  write(event: Event): void {
    // Milliseconds as a float: 53 bits hold a microsecond of 285 years.
    const line = { at: nowMs(), by: this.by, ...event };
    writeSync(this.file, `${JSON.stringify(line)}\n`);
  }
}

/** All lines of all processes in the order of their times. A last line that was cut by a kill is left out. */
export function readLedgers(folder: string): Line[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.jsonl'))
    .flatMap((name) => parse(readFileSync(join(folder, name), 'utf8')))
    .toSorted((a, b) => a.at - b.at);
}

function parse(text: string): Line[] {
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  return whole
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
}

const STALL_PROBE_MS = 100;
const STALL_MS = 300;

/** Records when this process's event loop stands still. */
export function recordStalls(ledger: Ledger): NodeJS.Timeout {
  let expected = nowMs() + STALL_PROBE_MS;
  const timer = setInterval(() => {
    const late = nowMs() - expected;
    if (late > STALL_MS) ledger.write({ what: 'stalled', ms: Math.round(late) });
    expected = nowMs() + STALL_PROBE_MS;
  }, STALL_PROBE_MS);
  return timer.unref();
}
