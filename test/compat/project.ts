import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { NODES, type Install } from './combinations.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc');
const NPM = [
  '--prefer-offline',
  '--no-audit',
  '--no-fund',
  '--no-package-lock',
  '--ignore-scripts',
  '--loglevel=error',
];
const run = promisify(execFile);

/** A folder of projects that depend on the packed package. */
export class Projects {
  private constructor(
    readonly folder: string,
    private readonly tarball: string,
  ) {}

  static async create(): Promise<Projects> {
    const folder = await realpath(await mkdtemp(join(tmpdir(), 'bildad-compat-')));
    const { stdout } = await run(
      'npm',
      ['pack', '--ignore-scripts', '--json', `--pack-destination=${folder}`],
      { cwd: ROOT },
    );
    const [packed] = Object.values(JSON.parse(stdout) as Record<string, { filename: string }>);
    return new Projects(folder, join(folder, packed!.filename));
  }

  remove(): Promise<void> {
    return rm(this.folder, { recursive: true, force: true });
  }

  /**
   * Installs the Node.js versions.
   * @returns the executables by major version
   */
  async nodes(): Promise<Record<number, string>> {
    const project = join(this.folder, 'nodes');
    const aliases = Object.entries(NODES).map(
      ([major, version]) =>
        [`node${major}`, `npm:node-${process.platform}-${process.arch}@${version}`] as const,
    );
    await this.npm(project, Object.fromEntries(aliases), []);
    return Object.fromEntries(
      Object.keys(NODES).map((major) => [
        major,
        join(project, `node_modules/node${major}/bin/node`),
      ]),
    );
  }

  /** @throws when a peer range is not met */
  async install(name: string, { packages, flags }: Install): Promise<string> {
    const project = join(this.folder, name);
    await this.npm(project, { ...packages, 'nestjs-bildad': `file:${this.tarball}` }, [
      '--strict-peer-deps',
      ...flags,
    ]);
    return project;
  }

  private async npm(
    project: string,
    dependencies: Record<string, string>,
    flags: string[],
  ): Promise<void> {
    await write(project, {
      'package.json': JSON.stringify({
        name: 'consumer',
        private: true,
        dependencies,
      }),
    });
    await run('npm', ['install', ...NPM, ...flags], { cwd: project });
  }
}

/** Recognizes npm's error when the registry is unreachable and the cache is incomplete. */
export const isOffline = (error: unknown): boolean =>
  /ENOTCACHED|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ETIMEDOUT/.test(
    String((error as { stderr?: unknown }).stderr),
  );

export async function write(folder: string, files: Record<string, string>): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
}

/**
 * Compiles the app.
 * @param deep also checks declarations (`skipLibCheck: false`)
 * @returns the errors in the app and in this package's declarations; errors of other packages
 * are ignored
 */
export async function compile(app: string, config: string, deep: boolean): Promise<string[]> {
  const output = await run(
    process.execPath,
    [TSC, '-p', join(app, config), '--skipLibCheck', `${!deep}`],
    { cwd: app, maxBuffer: 1 << 26 },
  ).then(
    () => '',
    ({ stdout }: { stdout: string }) => stdout,
  );
  return output
    .split('\n')
    .filter(
      (line) =>
        /error TS/.test(line) &&
        (!line.includes('node_modules/') || line.includes('node_modules/nestjs-bildad/')),
    );
}

export interface Served {
  url: string;
  /**
   * Stops the app.
   * @returns all its output, and its exit code or signal
   */
  end(): Promise<{ printed: string[]; ended: number | string | null }>;
}

/**
 * Starts the app.
 * @throws an error with its output if it exits before it listens
 */
export async function serve(node: string, app: string, databaseUrl: string): Promise<Served> {
  const child = spawn(node, [join(app, 'dist/main.js')], {
    cwd: app,
    env: { ...process.env, NODE_ENV: 'production', DATABASE_URL: databaseUrl },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const printed: string[] = [];
  const exited = once(child, 'close') as Promise<[number | null, string | null]>;
  child.stderr.on('data', (text: Buffer) => printed.push(...text.toString().trimEnd().split('\n')));
  const url = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      if (line.startsWith('http')) resolve(line);
      else printed.push(line);
    });
    void exited.then(() => reject(new Error(printed.join('\n'))));
  });
  return {
    url,
    end: async () => {
      child.kill('SIGTERM');
      const [code, signal] = await exited;
      return { printed, ended: code ?? signal };
    },
  };
}
