import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

export const USAGE = `Usage: npm start -- [options]

Indexes every file below a folder, one job per file, and shows what the job engine did.
Then it stays up and answers HTTP until it is stopped.

Options:
  --folder PATH   index this folder (default: this repository)
  --once          end after the work; the last line on stdout is the figures as JSON
  --help          show this text

Environment:
  DATABASE_URL    use this PostgreSQL (default: one of its own, gone with this process)
  PORT            HTTP port on 127.0.0.1 (default: 3000, or a free one if that is taken)
`;

export interface CliOptions {
  help: boolean;
  once: boolean;
  /** Absolute. */
  folder: string;
  databaseUrl: string | undefined;
  port: number;
}

/** What the user typed cannot be done; the message says why. */
export class UsageError extends Error {}

/** @throws UsageError */
export async function readOptions(args: string[], env: NodeJS.ProcessEnv): Promise<CliOptions> {
  const { help, once, folder } = parse(args);
  return {
    help,
    once,
    folder: help || folder === undefined ? REPOSITORY : await existing(folder),
    databaseUrl: env['DATABASE_URL'] || undefined,
    port: help ? 0 : portNumber(env['PORT'] || '3000'),
  };
}

/** Two folders above dist/sample-app/cli.js. */
const REPOSITORY = resolve(fileURLToPath(import.meta.url), '../../..');

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        help: { type: 'boolean', short: 'h', default: false },
        once: { type: 'boolean', default: false },
        folder: { type: 'string' },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

async function existing(folder: string): Promise<string> {
  try {
    if (!(await stat(folder)).isDirectory())
      throw new UsageError(`--folder: ${folder} is not a folder`);
    await access(folder, constants.R_OK | constants.X_OK);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw new UsageError(
      code === 'ENOENT'
        ? `--folder: "${folder}" does not exist`
        : `--folder: "${folder}" cannot be read (${code})`,
    );
  }
  return resolve(folder);
}

function portNumber(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : NaN;
  if (!(port <= 65_535))
    throw new UsageError(`PORT: expected a number from 0 to 65535, got "${text}"`);
  return port;
}
