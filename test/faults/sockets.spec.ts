import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { socketsTo } from './sockets.js';

it('counts what a process holds to a port, also where the other end is gone without a word', async () => {
  const server = createServer((socket) => socket.pause()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  expect(socketsTo(port, process.pid)).toBe(0);
  const clients = [1, 2, 3].map(() => connect({ port, host: '127.0.0.1' }));
  await Promise.all(clients.map((client) => once(client, 'connect')));
  expect(socketsTo(port, process.pid)).toBe(3);
  clients[0]!.destroy();
  await once(clients[0]!, 'close');
  expect(socketsTo(port, process.pid)).toBe(2);
  for (const client of clients) client.destroy();
  await new Promise((resolve) => server.close(resolve));
});

it('a process that is gone holds nothing', () => {
  // Beyond the largest number that Linux gives a process.
  expect(socketsTo(5432, 2 ** 22 + 1)).toBe(0);
});
