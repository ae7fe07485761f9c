import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

interface Pair {
  client: Socket;
  server: Socket;
  swallows: boolean;
}

/** A wire between an app and PostgreSQL that a test can cut. */
export interface Proxy {
  /** The database's url, through this wire. */
  url: string;
  /** When connections were asked for, by `performance.now()`. */
  readonly asked: number[];
  /** Connections that are there now carry nothing any more, and say nothing of it; new ones work. */
  blackholeOld(): void;
  /** So do new ones. */
  blackhole(): void;
  /** Ends all connections, refuses new ones. */
  refuse(): Promise<void>;
  /** New connections work again. */
  pass(): Promise<void>;
  /** The next statement with this text in it reaches the server, and is carried out; its answer is lost with the connection. */
  cutAfter(text: string): Promise<void>;
  close(): Promise<void>;
}

export async function startProxy(databaseUrl: string): Promise<Proxy> {
  const target = new URL(databaseUrl);
  const pairs = new Set<Pair>();
  const asked: number[] = [];
  let swallowNew = false;
  let cutting: { text: string; done: () => void } | undefined;

  const accept = (client: Socket) => {
    asked.push(performance.now());
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
      // A wire that carries nothing carries no end of it either.
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
      // What is sent stays where it is, a goodbye as well.
      pair.client.pause();
    }
  };
  const address = new URL(databaseUrl);
  address.hostname = '127.0.0.1';
  address.port = String(port);
  return {
    url: address.href,
    asked,
    blackholeOld: swallowOld,
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
