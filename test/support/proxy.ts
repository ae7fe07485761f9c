import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

interface Pair {
  client: Socket;
  server: Socket;
  swallows: boolean;
}

/** A TCP proxy between an app and PostgreSQL that a test can cut. */
export interface Proxy {
  /** The database's url through the proxy. */
  url: string;
  /** Times of connection attempts, by `performance.now()`. */
  readonly attempts: number[];
  /** Open connections silently stop carrying data. New connections work. */
  blackholeOpen(): void;
  /** Open and new connections silently stop carrying data. */
  blackhole(): void;
  /** Closes all connections and refuses new ones. */
  refuse(): Promise<void>;
  /** Accepts new connections again. */
  pass(): Promise<void>;
  /**
   * The server executes the next statement that contains this text, and its response is lost
   * with the connection.
   */
  cutAfter(text: string): Promise<void>;
  close(): Promise<void>;
}

export async function startProxy(databaseUrl: string): Promise<Proxy> {
  const target = new URL(databaseUrl);
  const pairs = new Set<Pair>();
  const attempts: number[] = [];
  let swallowNew = false;
  let cutting: { text: string; done: () => void } | undefined;

  const accept = (client: Socket) => {
    attempts.push(performance.now());
    const server = connect(Number(target.port || 5432), target.hostname);
    const pair: Pair = { client, server, swallows: swallowNew };
    pairs.add(pair);
    const over = () => {
      client.destroy();
      server.destroy();
      pairs.delete(pair);
    };
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      // A black-holed connection does not carry its close either.
      socket.on('close', () => {
        if (!pair.swallows || socket === client) over();
      });
    }
    let cut: (() => void) | undefined;
    client.on('data', (data) => {
      if (pair.swallows) return;
      if (cutting && data.includes(cutting.text)) {
        cut = cutting.done;
        cutting = undefined;
      }
      server.write(data);
    });
    server.on('data', (data) => {
      if (pair.swallows) return;
      if (cut) {
        over();
        cut();
      } else client.write(data);
    });
  };

  let listening: Server | undefined;
  const listen = async (port: number) => {
    listening = createServer(accept);
    listening.listen(port, '127.0.0.1');
    await once(listening, 'listening');
    return (listening.address() as AddressInfo).port;
  };
  const port = await listen(0);
  const end = async () => {
    const ended = listening;
    listening = undefined;
    for (const { client, server } of pairs) {
      client.destroy();
      server.destroy();
    }
    if (!ended) return;
    ended.close();
    await once(ended, 'close');
  };
  const swallowOld = () => {
    for (const pair of pairs) {
      pair.swallows = true;
      // Data already sent is not delivered, nor is a Terminate message.
      pair.client.pause();
    }
  };
  const address = new URL(databaseUrl);
  address.hostname = '127.0.0.1';
  address.port = String(port);
  return {
    url: address.href,
    attempts,
    blackholeOpen: swallowOld,
    blackhole: () => {
      swallowNew = true;
      swallowOld();
    },
    refuse: end,
    pass: async () => {
      swallowNew = false;
      if (!listening) await listen(port);
    },
    cutAfter: (text) =>
      new Promise((done) => {
        cutting = { text, done };
      }),
    close: end,
  };
}
