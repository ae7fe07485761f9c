import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/**
 * What a network does to one process's connections:
 * `blackhole`: nothing passes; what was sent arrives after the heal, as TCP would send it again.
 * `blackholeEstablished`: the connections there are swallow everything; new ones work.
 * `dropAnswers`: what the server says is swallowed.
 * `refuse`: connections are cut, and new ones refused.
 * `delay`: each chunk is late by `ms`, in order.
 * Once, on the connections there are: `reset` and `halfClose`.
 */
export type NetFault =
  'blackhole' | 'blackholeEstablished' | 'dropAnswers' | 'refuse' | 'delay' | 'reset' | 'halfClose';

interface Pair {
  client: Socket;
  server: Socket;
  /** Swallows: all, or what the server says. */
  swallows: 'nothing' | 'all' | 'answers';
  /** The statement that is to be cut off was seen. */
  cutting: boolean;
}

/** A TCP proxy between one process and the database. */
export class FaultProxy {
  private readonly pairs = new Set<Pair>();
  private mode: 'pass' | 'blackhole' | 'dropAnswers' | 'delay' = 'pass';
  private delayMs = 0;
  private cutAfter: Buffer | undefined;
  private cutDone: (() => void) | undefined;
  private server: Server;
  /** When connections were asked for. */
  readonly attempts: number[] = [];
  port = 0;

  private constructor(private readonly upstreamPort: number) {
    this.server = createServer();
  }

  static async start(upstreamPort: number): Promise<FaultProxy> {
    const proxy = new FaultProxy(upstreamPort);
    await proxy.listen();
    return proxy;
  }

  async inflict(fault: NetFault, { ms = 0 } = {}): Promise<void> {
    if (fault === 'reset') this.cutAll((pair) => pair.client.resetAndDestroy());
    else if (fault === 'halfClose') this.cutAll((pair) => pair.client.end());
    else if (fault === 'blackholeEstablished') for (const pair of this.pairs) pair.swallows = 'all';
    else if (fault === 'refuse') await this.refuse();
    else if (fault === 'dropAnswers') {
      this.mode = fault;
      for (const pair of this.pairs) pair.swallows = 'answers';
    } else {
      this.mode = fault;
      this.delayMs = ms;
      if (fault === 'blackhole') for (const pair of this.pairs) pause(pair);
    }
  }

  /**
   * Cuts the connection that sends this text as soon as the server has answered it, so that the statement
   * has happened and its sender does not know. @returns resolves when it has
   */
  cutAfterStatement(text: string): Promise<void> {
    this.cutAfter = Buffer.from(text);
    return new Promise((resolve) => {
      this.cutDone = resolve;
    });
  }

  /** A connection that lost bytes is of no use any more: it is reset. */
  async heal(): Promise<void> {
    const was = this.mode;
    this.mode = 'pass';
    this.cutAfter = undefined;
    this.cutDone?.();
    for (const pair of this.pairs) {
      pair.cutting = false;
      if (pair.swallows !== 'nothing') pair.client.resetAndDestroy();
      else if (was === 'blackhole') {
        pair.client.resume();
        pair.server.resume();
      }
    }
    if (!this.server.listening) await this.listen();
  }

  async stop(): Promise<void> {
    this.cutAll((pair) => pair.client.destroy());
    if (this.server.listening) {
      this.server.close();
      await once(this.server, 'close');
    }
  }

  private async listen(): Promise<void> {
    // Ends of one direction are passed on, not answered.
    this.server = createServer({ allowHalfOpen: true }, (client) => this.join(client));
    this.server.listen(this.port, '127.0.0.1');
    await once(this.server, 'listening');
    this.port = (this.server.address() as AddressInfo).port;
  }

  private async refuse(): Promise<void> {
    const closed = once(this.server, 'close');
    this.server.close();
    this.cutAll((pair) => pair.client.resetAndDestroy());
    await closed;
  }

  private cutAll(cut: (pair: Pair) => void): void {
    for (const pair of this.pairs) cut(pair);
  }

  private join(client: Socket): void {
    this.attempts.push(performance.now());
    const server = connect({
      port: this.upstreamPort,
      host: '127.0.0.1',
      allowHalfOpen: true,
    });
    const pair: Pair = {
      client,
      server,
      swallows: this.mode === 'dropAnswers' ? 'answers' : 'nothing',
      cutting: false,
    };
    this.pairs.add(pair);
    if (this.mode === 'blackhole') pause(pair);
    for (const socket of [client, server]) socket.setNoDelay(true);
    this.pass(pair, client, server, (chunk) => this.asked(pair, chunk));
    this.pass(pair, server, client, () => this.answered(pair));
    const gone = () => {
      this.pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) socket.on('error', gone).on('close', gone);
  }

  /** @param seen whether the chunk goes on */
  private pass(pair: Pair, from: Socket, to: Socket, seen: (chunk: Buffer) => boolean): void {
    const swallowed = () =>
      pair.swallows === 'all' || (pair.swallows === 'answers' && from === pair.server);
    let queue = Promise.resolve();
    let waiting = 0;
    const later = (work: () => void) => {
      if (this.mode !== 'delay' && waiting === 0) return work();
      waiting++;
      const due = performance.now() + this.delayMs;
      queue = queue.then(async () => {
        const left = due - performance.now();
        if (left > 0) await new Promise((resolve) => setTimeout(resolve, left));
        waiting--;
        work();
      });
    };
    from.on('data', (chunk: Buffer) => {
      if (!swallowed() && seen(chunk)) later(() => void (to.writable && to.write(chunk)));
    });
    from.on('end', () => {
      if (!swallowed()) later(() => void (to.writable && to.end()));
    });
  }

  private asked(pair: Pair, chunk: Buffer): boolean {
    if (this.cutAfter && chunk.includes(this.cutAfter)) {
      this.cutAfter = undefined;
      pair.cutting = true;
    }
    return true;
  }

  private answered(pair: Pair): boolean {
    if (!pair.cutting) return true;
    pair.client.resetAndDestroy();
    this.cutDone?.();
    return false;
  }
}

function pause({ client, server }: Pair): void {
  client.pause();
  server.pause();
}
