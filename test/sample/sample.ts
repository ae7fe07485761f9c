import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';

const MAIN = resolve(import.meta.dirname, '../../dist/sample-app/main.js');

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface Sample {
  process: ChildProcess;
  ended: Promise<Ended>;
  /** The first match in the output on stdout. Rejects when the process ends without a match. */
  waitForOutput(pattern: RegExp): Promise<RegExpExecArray>;
}

/** Starts the sample app as its users do. */
export function startSample(args: string[], env: Record<string, string> = {}): Sample {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...process.env, PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = once(child, 'close').then(([code]) => ({
    code: code as number | null,
    stdout,
    stderr,
  }));
  return {
    process: child,
    ended,
    waitForOutput: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(stdout);
          if (match) resolve(match);
        };
        child.stdout.on('data', look);
        void ended.then(() => reject(new Error(`it ended: ${stderr}`)));
        look();
      }),
  };
}

export const runSample = (args: string[], env?: Record<string, string>) =>
  startSample(args, env).ended;
