import 'reflect-metadata';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { startPostgres } from 'nestjs-bildad/testing';
import { spread } from '../statistics.js';
import { drain, type Drained } from './drain.js';
import { WAYS } from './ways.js';

/**
 * What it costs to use what the package has beside the engine: `npm run bench:extras`. Jobs are drained in turns, by a
 * process of its own for each way; `--only metrics --only "a guard"` leaves others out.
 */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    jobs: { type: 'string', default: '30000' },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string', multiple: true },
  },
});
const jobs = Number(values.jobs);
const [url, one] = positionals;
if (url) process.send!(await drain(url, jobs, WAYS[one!]!));
else await compare();

async function compare(): Promise<void> {
  const { only } = values;
  const names = Object.keys(WAYS).filter(
    (name) => !only || name === 'nothing' || only.includes(name),
  );
  const found = new Map<string, Drained[]>(names.map((name) => [name, []]));
  const server = await startPostgres({
    settings: { synchronous_commit: 'off' },
  });
  for (let round = 0; round < Number(values.rounds); round++)
    for (const name of round % 2 ? names.toReversed() : names)
      found.get(name)!.push(await apart(server.url, name));
  await server.stop();
  print(found);
}

async function apart(databaseUrl: string, name: string): Promise<Drained> {
  const child = fork(fileURLToPath(import.meta.url), [databaseUrl, name, `--jobs=${jobs}`]);
  const exited = once(child, 'exit');
  const [drained] = (await Promise.race([
    once(child, 'message'),
    exited.then(([code]) => {
      throw new Error(`"${name}" ended with ${code}`);
    }),
  ])) as [Drained];
  await exited;
  return drained;
}

function print(found: Map<string, Drained[]>): void {
  const table = new Table({
    head: ['', 'jobs/s', 'min - max', 'beside', 'us of CPU a job', 'added'],
    style: { head: [], border: [] },
  });
  const of = (name: string, what: keyof Drained) =>
    spread((found.get(name) ?? []).map((drained) => drained[what]));
  for (const name of found.keys()) {
    const speed = of(name, 'jobsPerSecond')!;
    const cpu = of(name, 'cpuUsPerJob')!;
    const { beside = 'nothing' } = WAYS[name]!;
    const otherSpeed = of(beside, 'jobsPerSecond');
    const otherCpu = of(beside, 'cpuUsPerJob');
    table.push([
      name,
      speed.median.toFixed(0),
      `${speed.min.toFixed(0)} - ${speed.max.toFixed(0)}`,
      otherSpeed ? (speed.median / otherSpeed.median).toFixed(2) : '',
      cpu.median.toFixed(1),
      otherCpu ? (cpu.median - otherCpu.median).toFixed(1) : '',
    ]);
  }
  console.log(table.toString());
}
