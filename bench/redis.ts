/** A Redis server for the benchmark only. It goes with this process, even when that is killed. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { access, constants } from 'node:fs/promises';

export const HOW_TO_INSTALL =
  'no redis-server on the PATH: apt-get install redis-server (Debian, Ubuntu)';

export async function hasRedis(): Promise<boolean> {
  const folders = (process.env.PATH ?? '').split(delimiter);
  const found = await Promise.all(
    folders.map((folder) =>
      access(join(folder, 'redis-server'), constants.X_OK).then(
        () => true,
        () => false,
      ),
    ),
  );
  return found.includes(true);
}

export class Redis {
  private constructor(
    readonly url: string,
    private readonly port: number,
    private readonly process: ChildProcess,
    private readonly folder: string,
  ) {}

  static async start({ aof }: { aof: boolean }): Promise<Redis> {
    const folder = await mkdtemp(join(tmpdir(), 'bildad-bench-redis-'));
    const port = await freePort();
    const options = `--port ${port} --bind 127.0.0.1 --dir ${folder} --save "" --appendonly ${aof ? 'yes' : 'no'}`;
    // The shell ends the server when our end of its input closes.
    const child = spawn(
      'sh',
      [
        '-c',
        `redis-server ${options} & server=$!; cat > /dev/null; kill $server; wait $server; rm -rf ${folder}`,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    let output = '';
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-5000);
        if (output.includes('Ready to accept connections')) resolve();
        if (output.includes('# Failed')) reject(new Error(output));
      });
    });
    return new Redis(`redis://127.0.0.1:${port}`, port, child, folder);
  }

  clear = () => this.ask('FLUSHALL', '+OK');

  async cpuMs(): Promise<number> {
    const text = await this.ask('INFO cpu', 'used_cpu_user_children');
    const seconds = (name: string) => Number(new RegExp(`${name}:([\\d.]+)`).exec(text)?.[1]);
    return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1000;
  }

  async stop(): Promise<void> {
    const exited = once(this.process, 'exit');
    this.process.stdin!.end();
    await exited;
    await rm(this.folder, { recursive: true, force: true });
  }

  /** A command, and the answer once it holds what it is to hold. */
  private ask(command: string, expected: string): Promise<string> {
    return new Promise((resolve, reject) => {
      let answer = '';
      const socket = connect(this.port, '127.0.0.1');
      socket.setEncoding('utf8').on('data', (text) => {
        answer += String(text);
        if (answer.includes(expected)) socket.end();
      });
      socket.on('error', reject).on('close', () => resolve(answer));
      socket.write(`${command}\r\n`);
    });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
