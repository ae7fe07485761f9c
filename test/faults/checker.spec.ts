import { describe, expect, it } from 'vitest';
import { check, type Invariant } from './checker.js';
import type { GuardRow, History, RunRow } from './history.js';
import type { Event, Line } from './ledger.js';
import type { LockedRows } from './row-locks.js';
import { LIMITS } from './settings.js';

// Histories made by hand, of each invariant one that holds and one that does not. Times in milliseconds.

const at = (time: number, by: string, event: Event): Line => ({
  at: time,
  by,
  ...event,
});

const run = (id: string, fields: Partial<RunRow> = {}): RunRow => ({
  id,
  entryId: '1',
  identifier: 'a',
  retry: Number(id) - 1,
  status: 'DONE',
  result: 'SUCCEEDED',
  reason: null,
  availableAt: 1_000,
  startedAt: 1_000,
  endedAt: 2_000,
  expiresAt: 4_000,
  ...fields,
});
const failed = (id: string, fields: Partial<RunRow> = {}) =>
  run(id, { result: 'FAILED', reason: 'no', ...fields });
const expired = (id: string, fields: Partial<RunRow> = {}) =>
  failed(id, {
    reason: 'Expired',
    expiresAt: 4_000,
    endedAt: 4_500,
    ...fields,
  });

const asked = (fields: Partial<Extract<Event, { what: 'ask' }>> = {}) => [
  at(900, 'client.1', {
    what: 'ask',
    id: 'a',
    kind: 'ok',
    maxRetries: 2,
    ...fields,
  }),
  at(950, 'client.1', { what: 'ack', id: 'a', ms: 50 }),
];
const handled = (
  id: string,
  from: number,
  to: number | null,
  by = 'w1.1',
  cooperative = true,
): Line[] => [
  at(from, by, { what: 'start', id: 'a', run: id, kind: 'ok', cooperative }),
  ...(to === null ? [] : [at(to, by, { what: 'end', id: 'a', run: id, how: 'returned' })]),
];
const fault = (kind: string, target: string, from: number, to: number): Line[] => [
  at(from, 'lab', { what: 'fault', n: from, kind, target }),
  at(to, 'lab', { what: 'heal', n: from, kind, target }),
];
const BOOTED = ['w1.1', 'w2.1'].flatMap((by) => [
  at(0, 'lab', { what: 'spawn', worker: by, pid: 1, missing: null }),
  at(10, by, { what: 'ready', pid: 1 }),
]);
const exit = (time: number, worker: string, cause: Extract<Event, { what: 'exit' }>['cause']) =>
  at(time, 'lab', { what: 'exit', worker, pid: 1, code: 'SIGKILL', cause });

type Parts = Partial<Omit<History, 'lines'>> & { lines?: Line[] };

const history = ({ lines = [], ...parts }: Parts): History => ({
  runs: [],
  entries: [],
  orders: [],
  guard: [],
  charges: [],
  limits: LIMITS,
  ...parts,
  lines: [...BOOTED, ...lines].toSorted((a, b) => a.at - b.at),
});

const violated = (parts: Parts) => [
  ...new Set(check(history(parts)).map(({ invariant }) => invariant)),
];

/** One job, one run, done. */
const ONE: Parts = {
  lines: [...asked(), ...handled('1', 1_010, 1_990)],
  runs: [run('1')],
};
/** Its first process was killed, another has done it. */
const RESCUED: Parts = {
  lines: [
    ...asked(),
    ...handled('1', 1_010, null),
    ...fault('kill', 'w1', 1_500, 2_500),
    exit(1_500, 'w1.1', 'killed'),
    ...handled('2', 5_010, 5_900, 'w2.1'),
  ],
  runs: [
    expired('1'),
    run('2', {
      availableAt: 4_700,
      startedAt: 5_000,
      endedAt: 6_000,
      expiresAt: 8_000,
    }),
  ],
};
/** A frozen one came back after its run was closed. */
const zombie = (endsAt: number, thawsAt: number): Parts => ({
  ...RESCUED,
  lines: [
    ...asked(),
    ...handled('1', 1_010, endsAt),
    ...fault('freeze', 'w1', 1_500, thawsAt),
    ...handled('2', 5_010, 5_900, 'w2.1'),
  ],
});

const guard = (...rows: Partial<GuardRow>[]): GuardRow[] =>
  rows.map((row, n) => ({
    at: n * 1_000,
    holder: 'w1',
    term: n + 1,
    wasFree: true,
    expiresAt: n * 1_000 + 15_000,
    ...row,
  }));
const calm = (...rest: Line[]) => [at(10_000, 'lab', { what: 'calm' }), ...rest];
const bothWork = [...handled('1', 10_100, 10_200), ...handled('2', 10_300, 10_400, 'w2.1')];
const LATER = { startedAt: 10_050, endedAt: 10_500, expiresAt: 13_050 };
const pauses = (ms: (n: number) => number): RunRow[] =>
  Array.from({ length: 10 }, (_none, n) => [
    failed(`${2 * n + 1}`, { identifier: `${n}`, retry: 0 }),
    run(`${2 * n + 2}`, {
      identifier: `${n}`,
      retry: 1,
      availableAt: 2_000 + ms(n),
      startedAt: 5_000,
      endedAt: 5_100,
    }),
  ]).flat();

/** Rows that another transaction locks from 20 to 25 s. */
const locks = (rows: Partial<LockedRows>): Line[] => [
  ...fault('lockRuns', 'lockRuns', 20_000, 25_000),
  at(20_001, 'lab', { what: 'locked', n: 20_000, jobs: [], templates: [], keys: [], ...rows }),
];
/** A job that was enqueued meanwhile. */
const askedLate = (ms: number, key?: string, what: 'ack' | 'unknown' = 'ack') => [
  at(21_000, 'client.1', {
    what: 'ask',
    id: 'a',
    kind: 'ok',
    maxRetries: 2,
    ...(key !== undefined && { key }),
  }),
  at(21_000 + ms, 'client.1', { what, id: 'a', ms }),
];
const startedAfter = (ms: number) => [
  run('1', { availableAt: 21_000, startedAt: 21_100 + ms, endedAt: 24_900, expiresAt: 27_000 }),
];
const recordedAfter = (ms: number): Line[] => [
  ...askedLate(100),
  at(21_200, 'w1.1', { what: 'start', id: 'a', run: '1', kind: 'ok', cooperative: true }),
  at(21_300, 'w1.1', { what: 'end', id: 'a', run: '1', how: 'returned' }),
  at(21_300 + ms, 'w1.1', { what: 'landed', id: 'a', run: '1', outcome: 'completed' }),
];
const lostDatabase = at(24_000, 'w1.1', { what: 'databaseLost', error: 'a timeout' });

const held: [string, Parts][] = [
  [
    'a job beside locked rows',
    { lines: [...locks({ jobs: ['b'] }), ...recordedAfter(200)], runs: startedAfter(50) },
  ],
  [
    'an enqueue that waits for its own template',
    { lines: [...locks({ templates: ['OK'] }), ...askedLate(3_000, 'k', 'unknown')] },
  ],
  [
    'an enqueue that waits for its own key',
    { lines: [...locks({ keys: ['k'] }), ...askedLate(3_000, 'k', 'unknown')] },
  ],
  [
    'a job whose own entry is locked',
    {
      lines: [...locks({ jobs: ['a'] }), ...recordedAfter(3_000)],
      runs: startedAfter(50),
    },
  ],
  [
    'a machine that was busy',
    {
      lines: [
        ...locks({ jobs: ['b'] }),
        ...recordedAfter(3_000),
        at(24_000, 'w1.1', { what: 'stalled', ms: 2_500 }),
      ],
      runs: startedAfter(50),
    },
  ],
  [
    'a database that was lost',
    { lines: [...fault('restart', 'database', 22_000, 23_000), lostDatabase] },
  ],
  ['a job that was done at once', ONE],
  ['a job that was rescued', RESCUED],
  ['a zombie that stopped when it could', zombie(7_100, 7_000)],
  [
    'a job that used up its retries',
    {
      lines: asked(),
      runs: [1, 2, 3].map((n) =>
        failed(`${n}`, {
          startedAt: n * 2_000,
          endedAt: n * 2_000 + 100,
          availableAt: n * 1_990 + n,
        }),
      ),
    },
  ],
  ['a transaction that was rolled back', { lines: [asked({ transaction: 'rollsBack' })[0]!] }],
  [
    'a job that was cancelled before it ran',
    {
      lines: [...asked(), at(960, 'client.1', { what: 'operated', id: 'a', deed: 'cancel' })],
    },
  ],
  [
    'a lease that nobody could look at while the database was away',
    {
      ...RESCUED,
      lines: [...RESCUED.lines!, ...fault('restart', 'database', 4_000, 14_000)],
      runs: [
        expired('1', { endedAt: 17_000 }),
        run('2', { availableAt: 17_100, startedAt: 17_500, endedAt: 18_000 }),
      ],
    },
  ],
  [
    "a lease that nobody looked at while the guard was a dead node's",
    {
      ...RESCUED,
      runs: [
        expired('1', { endedAt: 17_000 }),
        run('2', { availableAt: 17_100, startedAt: 17_500, endedAt: 18_000 }),
      ],
      guard: guard({ at: 1_400, expiresAt: 16_400 }),
    },
  ],
  [
    'nodes that work after the last heal',
    {
      lines: calm(...bothWork),
      runs: [run('1', LATER), run('2', { ...LATER, identifier: 'b' })],
    },
  ],
  [
    'a call without an answer while the network was away',
    {
      lines: [
        ...fault('blackhole', 'client', 2_000, 12_000),
        at(11_000, 'client.1', {
          what: 'unknown',
          id: 'b',
          ms: 8_000,
          error: 'no answer in 8000 ms',
        }),
      ],
    },
  ],
  [
    'a process that poison ended',
    {
      lines: [at(50, 'w1.1', { what: 'poison', id: 'a', run: '1' }), exit(60, 'w1.1', 'itself')],
    },
  ],
  [
    'an app that could not start while the database was away',
    {
      lines: [...fault('restart', 'database', 100, 5_000), exit(4_000, 'w1.2', 'boot')],
    },
  ],
  [
    'an app that closed in time',
    {
      lines: [
        at(100, 'lab', {
          what: 'close',
          worker: 'w1.1',
          ms: 900,
          deadlineMs: 1_000,
        }),
        at(90, 'w1.1', { what: 'closed', left: ['Timeout'] }),
      ],
    },
  ],
  [
    'as many connections as are allowed',
    {
      lines: [
        at(100, 'lab', {
          what: 'connections',
          worker: 'w1.1',
          open: LIMITS.connections,
        }),
      ],
    },
  ],
  [
    'a guard that went from hand to hand',
    {
      guard: guard({}, { holder: 'w2' }, { holder: 'w2', term: 2, expiresAt: null }, { term: 3 }),
    },
  ],
  ['pauses that differ', { runs: pauses((n) => 100 + 10 * n) }],
];

it.each(held)('%s', (_name, parts) => {
  const found = check(history(parts)).filter(
    // Hand-made jobs outside of what a case is about.
    ({ what }) => !what.includes('its handler did not return'),
  );
  expect(found).toEqual([]);
});

const broken: [Invariant, string, Parts][] = [
  ['I1', 'acknowledged, and nowhere', { lines: asked() }],
  [
    'I1',
    'enqueued twice under one identifier',
    {
      ...RESCUED,
      runs: RESCUED.runs!.map((row) => ({ ...row, entryId: row.id })),
    },
  ],
  [
    'I2',
    'left in the queue',
    { ...ONE, entries: [{ id: '1', identifier: 'a', status: 'AVAILABLE' }] },
  ],
  [
    'I2',
    'a run that never ended',
    {
      ...ONE,
      runs: [run('1', { status: 'RUNNING', result: null, endedAt: null })],
    },
  ],
  ['I2', 'gone with retries left', { ...ONE, runs: [failed('1')] }],
  ['I3', 'succeeded twice', { ...RESCUED, runs: [run('1'), run('2', { startedAt: 1_900 })] }],
  [
    'I3',
    'run again after it had succeeded',
    {
      ...ONE,
      runs: [run('1'), failed('2', { startedAt: 3_000, endedAt: 3_100 })],
    },
  ],
  [
    'I3',
    'succeeded without its handler',
    { ...ONE, lines: [...asked(), ...handled('1', 1_010, null)] },
  ],
  [
    'I3',
    'succeeded before its handler returned',
    { ...ONE, lines: [...asked(), ...handled('1', 1_010, 2_500)] },
  ],
  [
    'I4',
    'two live runs in the tables',
    { ...RESCUED, runs: [expired('1', { endedAt: 5_500 }), RESCUED.runs![1]!] },
  ],
  [
    'I4',
    'one run in two hands',
    { ...ONE, lines: [...ONE.lines!, ...handled('1', 1_500, 1_600, 'w2.1')] },
  ],
  ['I4', 'a handler that went on long after its run was closed', zombie(12_500, 2_000)],
  [
    'I4',
    'expired under a living lease',
    {
      ...RESCUED,
      runs: [expired('1', { expiresAt: 4_900 }), RESCUED.runs![1]!],
    },
  ],
  [
    'I4',
    'expired on a node that nothing disturbed',
    {
      ...RESCUED,
      lines: [...asked(), ...handled('1', 31_010, 33_000), ...handled('2', 36_000, 36_500, 'w2.1')],
      runs: [
        expired('1', { startedAt: 31_000, expiresAt: 34_000, endedAt: 34_500 }),
        run('2', { availableAt: 34_600, startedAt: 35_900, endedAt: 36_600 }),
      ],
    },
  ],
  [
    'I5',
    'failed more often than it may',
    {
      lines: asked(),
      runs: [1, 2, 3, 4].map((n) =>
        failed(`${n}`, { startedAt: n * 2_000, endedAt: n * 2_000 + 100 }),
      ),
    },
  ],
  [
    'I5',
    'charged with more lost nodes than it may be',
    {
      ...ONE,
      charges: [1, 2, 3, 4].map((crashes) => ({ identifier: 'a', crashes })),
    },
  ],
  [
    'I5',
    'given up for crashes that it was not charged with',
    {
      lines: asked({ maxRetries: 9 }),
      runs: [failed('1', { reason: 'Crashed' })],
      charges: [{ identifier: 'a', crashes: 1 }],
    },
  ],
  [
    'I5',
    'interrupted by nobody',
    {
      ...ONE,
      runs: [
        failed('1', { reason: 'Interrupted', endedAt: 1_100 }),
        run('2', { startedAt: 1_200 }),
      ],
    },
  ],
  [
    'I6',
    'there, though it was rolled back',
    {
      ...ONE,
      lines: [...asked({ transaction: 'rollsBack' }), ...handled('1', 1_010, 1_990)],
    },
  ],
  [
    'I6',
    'there, though its transaction is not',
    {
      ...ONE,
      lines: [...asked({ transaction: 'commits' }), ...handled('1', 1_010, 1_990)],
    },
  ],
  [
    'I6',
    'not there, though its transaction is',
    { lines: [asked({ transaction: 'commits' })[0]!], orders: ['a'] },
  ],
  [
    'I7',
    'rescued late for no reason',
    {
      ...RESCUED,
      runs: [
        expired('1', { endedAt: 17_000 }),
        run('2', { availableAt: 17_100, startedAt: 17_500, endedAt: 18_000 }),
      ],
    },
  ],
  [
    'I8',
    'a node that did nothing after the last heal',
    { lines: calm(...handled('1', 10_100, 10_200)), runs: [run('1')] },
  ],
  [
    'I8',
    'not drained',
    {
      lines: calm(...bothWork, at(50_000, 'lab', { what: 'drained', ms: 40_000, left: 3 })),
      runs: [run('1'), run('2', { identifier: 'b' })],
    },
  ],
  [
    'I9',
    'an unhandled rejection',
    {
      lines: [at(50, 'w1.1', { what: 'fatal', error: 'unhandledRejection: no' })],
    },
  ],
  ['I9', 'a process that ended by itself', { lines: [exit(60, 'w1.1', 'itself')] }],
  ['I9', 'an app that did not start for no reason', { lines: [exit(60, 'w1.2', 'boot')] }],
  [
    'I9',
    'a deadlock that came through',
    {
      lines: [
        at(50, 'w1.1', {
          what: 'engineError',
          doing: 'x',
          error: 'deadlock detected',
          code: '40P01',
        }),
      ],
    },
  ],
  [
    'I10',
    'closed late',
    {
      lines: [
        at(100, 'lab', {
          what: 'close',
          worker: 'w1.1',
          ms: 1_100,
          deadlineMs: 1_000,
        }),
      ],
    },
  ],
  ['I11', 'a guard that was taken away', { guard: guard({}, { holder: 'w2', wasFree: false }) }],
  ['I11', 'a term with two holders', { guard: guard({}, { holder: 'w2', term: 1 }) }],
  ['I11', 'a term that was skipped', { guard: guard({}, { term: 3 }) }],
  [
    'I12',
    'no answer, for no reason',
    {
      lines: [
        at(11_000, 'client.1', {
          what: 'unknown',
          id: 'b',
          ms: 8_000,
          error: 'no answer in 8000 ms',
        }),
      ],
    },
  ],
  [
    'I15',
    'too many connections',
    {
      lines: [
        at(100, 'lab', {
          what: 'connections',
          worker: 'w1.1',
          open: LIMITS.connections + 1,
        }),
      ],
    },
  ],
  [
    'I15',
    'a socket that was left',
    { lines: [at(90, 'w1.1', { what: 'closed', left: ['TCPSocketWrap'] })] },
  ],
  [
    'I16',
    'an enqueue that waits for rows of others',
    { lines: [...locks({ templates: ['FLAKY'], keys: ['k'] }), ...askedLate(3_000, 'l')] },
  ],
  [
    'I16',
    'a job that starts late beside locked rows',
    {
      lines: [...locks({ jobs: ['b'] }), ...askedLate(100)],
      runs: startedAfter(3_500),
    },
  ],
  [
    'I16',
    'an end that is recorded late beside locked rows',
    { lines: [...locks({ jobs: ['b'] }), ...recordedAfter(3_000)], runs: startedAfter(50) },
  ],
  [
    'I16',
    'a database that is taken for lost beside locked rows',
    { lines: [...locks({ jobs: ['b'] }), lostDatabase] },
  ],
  ['jitter', 'pauses that are all alike', { runs: pauses(() => 150) }],
];

describe.each(broken)('%s', (invariant, name, parts) => {
  it(name, () => {
    expect(violated(parts)).toContain(invariant);
  });
});
