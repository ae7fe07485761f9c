import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const script = (name: string) =>
  fileURLToPath(new URL(`../../dist/test/fixtures/${name}.js`, import.meta.url));

export interface Worker {
  process: ChildProcess;
  /**
   * Stops the process as a deploy does.
   * @returns the exit code, or the signal that ended it
   */
  terminate(): Promise<number | string | null>;
  /** Kills the process as a power failure would. */
  kill(): Promise<void>;
}

/**
 * Starts a node in its own process (test/fixtures/worker.ts or another fixture) and waits until
 * it is ready.
 */
export async function startWorker(
  databaseUrl: string,
  env: Record<string, string> = {},
  fixture = 'worker',
): Promise<Worker> {
  const child = fork(script(fixture), {
    env: { ...process.env, DATABASE_URL: databaseUrl, ...env },
  });
  const exited = once(child, 'exit') as Promise<[number | null, string | null]>;
  await Promise.race([
    once(child, 'message'),
    exited.then(([code, signal]) =>
      Promise.reject(new Error(`the worker ended with ${code ?? signal}`)),
    ),
  ]);
  const end = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    const [code, ended] = await exited;
    return code ?? ended;
  };
  return {
    process: child,
    terminate: () => end('SIGTERM'),
    kill: async () => void (await end('SIGKILL')),
  };
}
