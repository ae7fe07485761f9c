import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase } from '../support/database.js';
import { filesOf } from './app.js';
import {
  COMBINATIONS,
  installOf,
  LOWEST,
  type Combination,
} from './combinations.js';
import { compile, isOffline, Projects, serve, write } from './project.js';

// The package as npm installs it, in apps of all that it says it goes with; docs/compatibility.md has the table.

const nameOf = ({ node, nest, typeorm, module, http }: Combination) =>
  `Node ${node}, Nest ${nest}, TypeORM ${typeorm}, ${module}, ${http}`;

interface Made {
  app: string;
  wrong: string[];
}

let projects: Projects;
let nodes: Record<number, string>;
let offline = false;
const made = new Map<Combination, Made>();

beforeAll(async () => {
  projects = await Projects.create();
  const groups = new Map<string, Combination[]>();
  for (const row of COMBINATIONS) {
    const name = `nest-${row.nest}-typeorm-${row.typeorm}`;
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  const tasks = [
    async () => void (nodes = await projects.nodes()),
    ...[...groups].map(
      ([name, group]) =>
        () =>
          make(name, group),
    ),
  ];
  // Two at a time: that is what a small machine has.
  const worker = async () => {
    for (let task = tasks.shift(); task; task = tasks.shift()) await task();
  };
  try {
    await Promise.all([worker(), worker()]);
  } catch (error) {
    // A developer without a network goes on with the rest; CI does not.
    offline = isOffline(error) && !process.env['CI'];
    if (!offline) throw error;
  }
}, 240_000);
afterAll(() => projects.remove());

async function make(name: string, group: Combination[]): Promise<void> {
  const project = await projects.install(name, installOf(group[0]!));
  for (const combination of group) {
    const { node, module } = combination;
    const app = join(project, `${node}-${module}`);
    await write(app, filesOf(combination));
    const wrong = await compile(app, 'tsconfig.json');
    if (combination === COMBINATIONS.at(-1))
      wrong.push(...(await compile(app, 'tsconfig.bundler.json')));
    made.set(combination, { app, wrong });
  }
}

describe.each(COMBINATIONS.map((row) => [nameOf(row), row] as const))(
  '%s',
  (_name, combination) => {
    it('compiles, and runs jobs inline, in a thread and in a process', async (test) => {
      test.skip(offline, 'no registry');
      const { app, wrong } = made.get(combination)!;
      expect(wrong).toEqual([]);
      const database = await createDatabase();
      const served = await serve(nodes[combination.node]!, app, database.url);
      const ask = async (path: string, init?: RequestInit) => {
        const answer = await fetch(`${served.url}/jobs/${path}`, init);
        return (await answer.json()) as Record<string, unknown>;
      };
      const story = Promise.all(
        ['INLINE', 'THREAD', 'PROCESS'].map(async (code) => {
          const { jobRunIdentifier } = await ask(code, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify({ name: code }),
          });
          return ask(String(jobRunIdentifier));
        }),
      );
      const [ends] = await Promise.allSettled([story]);
      const { printed, ended } = await served.end();
      expect(ends).toEqual({
        status: 'fulfilled',
        value: ['INLINE', 'THREAD', 'PROCESS'].map((code) => ({
          result: 'SUCCEEDED',
          output: `Hello ${code} RUNNING`,
        })),
      });
      // Not a warning, and no deprecation.
      expect(printed).toEqual(['closed by SIGTERM']);
      // Nest raises the signal again when it has closed the app.
      expect(ended).toBe('SIGTERM');
      expect(
        await database.sql('SELECT end_reason FROM bildad.job_nodes'),
      ).toEqual([{ end_reason: 'shutdown' }]);
      await database.drop();
    }, 60_000);
  },
);

it('two values of two columns meet in some row', () => {
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

it('the peer ranges begin with what the lowest row has', () => {
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
