import { createServer, connect, type Socket } from 'node:net';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

/** A way to the database that can be made to swallow everything, as a network does. */
export interface Proxy {
  /** The database's, by this way. */
  url: string;
  /** What is sent gets lost, in both directions, and nobody is told; new connections as well. */
  blackhole(): void;
  /** Lets new connections through, and resets those of before. */
  pass(): void;
  close(): Promise<void>;
}

export async function startProxy(databaseUrl: string): Promise<Proxy> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let swallows = false;
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => sockets.delete(socket));
  };
  const server = createServer((client) => {
    keep(client);
    if (swallows) {
      client.resume();
      return;
    }
    const upstream = connect(Number(target.port), target.hostname);
    keep(upstream);
    const forward = (from: Socket, to: Socket) => {
      from.on('data', (data) => {
        if (!swallows) to.write(data);
      });
      from.on('close', () => to.destroy());
    };
    forward(client, upstream);
    forward(upstream, client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = new URL(databaseUrl);
  url.hostname = '127.0.0.1';
  url.port = String((server.address() as AddressInfo).port);
  const reset = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    url: url.href,
    blackhole: () => {
      swallows = true;
    },
    pass: () => {
      swallows = false;
      reset();
    },
    close: async () => {
      reset();
      server.close();
      await once(server, 'close');
    },
  };
}
