import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createEmptyDatabase } from '../support/database.js';
import { filesOf } from './app.js';
import { COMBINATIONS, installOf, LOWEST, type Combination } from './combinations.js';
import { compile, isOffline, Projects, serve, write } from './project.js';

// The package as npm installs it, in apps of all supported combinations. docs/compatibility.md has
// the table.

const nameOf = ({ node, nest, typeorm, module, http }: Combination) =>
  `Node ${node}, Nest ${nest}, TypeORM ${typeorm}, ${module}, ${http}`;

const CODES = ['INLINE', 'THREAD', 'PROCESS'];

/** The behaviour of an app as seen from outside. */
interface Seen {
  wrong: string[];
  ends: Record<string, unknown>[];
  printed: string[];
  ended: number | string | null;
  nodes: unknown[];
}

let projects: Projects;
let offline = false;
const seen = new Map<Combination, PromiseSettledResult<Seen>>();

beforeAll(async () => {
  projects = await Projects.create();
  const groups = new Map<string, Combination[]>();
  for (const row of COMBINATIONS) {
    const name = `nest-${row.nest}-typeorm-${row.typeorm}`;
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  const nodes = projects.nodes();
  const tasks = [...groups].map(([name, group]) => async () => {
    const project = await projects.install(name, installOf(group[0]!));
    const programs = await nodes;
    for (const row of group) {
      const node = programs[row.node]!;
      const [story] = await Promise.allSettled([see(project, row, node)]);
      seen.set(row, story);
    }
  });
  // Two at a time, the number of cores of a small machine.
  const worker = async () => {
    for (let task = tasks.shift(); task; task = tasks.shift()) await task();
  };
  const all = await Promise.allSettled([nodes, worker(), worker()]);
  for (const one of all)
    if (one.status === 'rejected') {
      // Without a network, a developer's other tests go on. CI fails.
      offline = isOffline(one.reason) && !process.env['CI'];
      if (!offline) throw one.reason;
    }
}, 600_000);
afterAll(() => projects.remove());

async function see(project: string, combination: Combination, node: string): Promise<Seen> {
  const app = join(project, `${combination.node}-${combination.module}`);
  await write(app, filesOf(combination));
  // All declarations are checked once for each Nest and each TypeORM, because the check doubles the
  // time.
  const deep = combination.node === 20;
  const wrong = await compile(app, 'tsconfig.json', deep);
  if (combination === COMBINATIONS.at(-1))
    wrong.push(...(await compile(app, 'tsconfig.bundler.json', false)));
  const database = await createEmptyDatabase();
  try {
    const served = await serve(node, app, database.url);
    const [story] = await Promise.allSettled([enqueueAll(served.url)]);
    const end = await served.end();
    if (story.status === 'rejected') throw story.reason;
    const nodes = await database.sql('SELECT end_reason FROM bildad.job_nodes');
    return { wrong, ends: story.value, ...end, nodes };
  } finally {
    await database.drop();
  }
}

async function enqueueAll(url: string): Promise<Record<string, unknown>[]> {
  const ask = async (path: string, init?: RequestInit) => {
    const answer = await fetch(`${url}/jobs/${path}`, init);
    return (await answer.json()) as Record<string, unknown>;
  };
  return Promise.all(
    CODES.map(async (code) => {
      const { jobRunIdentifier } = await ask(code, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ name: code }),
      });
      return ask(String(jobRunIdentifier));
    }),
  );
}

it.for(COMBINATIONS.map((row) => [nameOf(row), row] as const))(
  '%s: the app compiles and runs jobs inline, in a thread and in a process',
  ([_name, combination], test) => {
    test.skip(offline, 'no registry');
    expect(seen.get(combination)).toEqual({
      status: 'fulfilled',
      value: {
        wrong: [],
        ends: CODES.map((code) => ({
          result: 'SUCCEEDED',
          output: `Hello ${code} RUNNING`,
        })),
        // No warning and no deprecation is printed.
        printed: ['closed by SIGTERM'],
        // Nest raises the signal again after it has closed the app.
        ended: 'SIGTERM',
        nodes: [{ end_reason: 'shutdown' }],
      },
    });
  },
);

it('any two values of two columns occur together in a row', () => {
  const columns = Object.keys(COMBINATIONS[0]!) as (keyof Combination)[];
  const missing: string[] = [];
  for (const one of columns)
    for (const other of columns) {
      if (one === other) continue;
      for (const a of new Set(COMBINATIONS.map((row) => row[one])))
        for (const b of new Set(COMBINATIONS.map((row) => row[other])))
          if (!COMBINATIONS.some((row) => row[one] === a && row[other] === b))
            missing.push(`${one} ${a} with ${other} ${b}`);
    }
  expect(missing).toEqual([]);
});

it('the peer ranges start at the versions of the lowest row', () => {
  const { peerDependencies, peerDependenciesMeta, engines } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  ) as {
    peerDependencies: Record<string, string>;
    peerDependenciesMeta: Record<string, { optional?: boolean }>;
    engines: { node: string };
  };
  const begin = Object.fromEntries(
    Object.entries(peerDependencies)
      .filter(([name]) => !peerDependenciesMeta[name]?.optional)
      .map(([name, range]) => [name, /\d+\.\d+\.\d+/.exec(range)?.[0]]),
  );
  expect(begin).toEqual(LOWEST);
  expect(engines.node).toBe('>=20.19');
});
