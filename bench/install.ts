/** The peers have a package.json of their own: they are installed and compiled here, by the first run that needs them. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PEERS = fileURLToPath(new URL('../../bench/peers/', import.meta.url));
/** The lock that was installed. */
const STAMP = join(PEERS, 'node_modules', '.bench-lock');

export async function installPeers(): Promise<void> {
  const lock = createHash('sha256')
    .update(await readFile(join(PEERS, 'package-lock.json')))
    .digest('hex');
  const installed = await readFile(STAMP, 'utf8').catch(() => undefined);
  if (installed !== lock) {
    console.error('bench/peers: npm ci');
    // Their engines ask for a newer Node than ours; none needs its install script.
    await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']);
    await writeFile(STAMP, lock);
  }
  const typescript = createRequire(import.meta.url).resolve('typescript');
  await run(process.execPath, [join(dirname(typescript), '..', 'bin', 'tsc'), '-p', PEERS]);
}

async function run(program: string, args: string[]): Promise<void> {
  const child = spawn(program, args, {
    cwd: PEERS,
    stdio: ['ignore', 'pipe', 'inherit'],
    shell: process.platform === 'win32',
  });
  // Our own output is for the tables.
  child.stdout.pipe(process.stderr, { end: false });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`bench/peers: ${[program, ...args].join(' ')} failed`);
}
