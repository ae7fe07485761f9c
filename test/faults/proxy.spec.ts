import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { FaultProxy } from './proxy.js';

// Against a server that answers each line it gets with the same line.

const heard: string[] = [];
const server = createServer((socket) => {
  socket.setEncoding('utf8');
  socket.on('error', () => undefined);
  socket.on('data', (text: string) => {
    heard.push(text);
    socket.write(`re ${text}`);
  });
});
let proxy: FaultProxy;
const clients: Socket[] = [];

beforeEach(async () => {
  heard.length = 0;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy = await FaultProxy.start((server.address() as AddressInfo).port);
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  await proxy.stop();
  server.close();
  await once(server, 'close');
});

async function connected(): Promise<Socket> {
  const client = connect(proxy.port, '127.0.0.1').setEncoding('utf8');
  clients.push(client);
  client.on('error', () => undefined);
  await once(client, 'connect');
  return client;
}

async function asked(client: Socket, text: string): Promise<string> {
  client.write(text);
  const [answer] = (await once(client, 'data')) as [string];
  return answer;
}

/** What comes first: an answer, or the end of the connection. */
const fate = (client: Socket): Promise<string> =>
  new Promise((resolve) => {
    client.once('data', resolve);
    client.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    client.once('end', () => resolve('end'));
  });

const serverHas = (text: string) => expect.poll(() => heard.join('')).toContain(text);

it('passes what it gets, and an end', async () => {
  const client = await connected();
  expect(await asked(client, 'a')).toBe('re a');
  client.end();
  await once(client, 'close');
});

it('a black hole gives back at its heal what it swallowed', async () => {
  const client = await connected();
  await asked(client, 'a');
  await proxy.inflict('blackhole');
  const answer = fate(client);
  client.write('b');
  const late = await connected();
  const lateAnswer = fate(late);
  late.write('c');
  expect(heard).toEqual(['a']);
  await proxy.heal();
  expect(await answer).toBe('re b');
  expect(await lateAnswer).toBe('re c');
});

it('a black hole of what is established leaves new connections alone', async () => {
  const client = await connected();
  await asked(client, 'a');
  await proxy.inflict('blackholeEstablished');
  const end = fate(client);
  client.write('b');
  expect(await asked(await connected(), 'c')).toBe('re c');
  expect(heard).toEqual(['a', 'c']);
  await proxy.heal();
  expect(await end).toBe('ECONNRESET');
});

it('a statement that is cut off has happened, and its sender does not know', async () => {
  const client = await connected();
  await asked(client, 'a');
  const cut = proxy.cutAfterStatement('COMMIT');
  const end = fate(client);
  client.write('COMMIT');
  await cut;
  expect(await end).toBe('ECONNRESET');
  expect(heard).toEqual(['a', 'COMMIT']);
  expect(await asked(await connected(), 'COMMIT')).toBe('re COMMIT');
});

it('answers are dropped, questions are not', async () => {
  const client = await connected();
  await asked(client, 'a');
  await proxy.inflict('dropAnswers');
  const end = fate(client);
  client.write('b');
  await serverHas('b');
  await proxy.heal();
  expect(await end).toBe('ECONNRESET');
});

it('connections are refused until the heal', async () => {
  const client = await connected();
  const end = fate(client);
  await proxy.inflict('refuse');
  expect(await end).toBe('ECONNRESET');
  const refused = connect(proxy.port, '127.0.0.1');
  expect(await fate(refused)).toBe('ECONNREFUSED');
  await proxy.heal();
  expect(await asked(await connected(), 'a')).toBe('re a');
});

it('connections are reset, or closed from one side', async () => {
  const client = await connected();
  await asked(client, 'a');
  const end = fate(client);
  await proxy.inflict('reset');
  expect(await end).toBe('ECONNRESET');
  const other = await connected();
  await asked(other, 'a');
  const otherEnd = fate(other);
  await proxy.inflict('halfClose');
  expect(await otherEnd).toBe('end');
});

it('what is delayed arrives in order', async () => {
  const client = await connected();
  await proxy.inflict('delay', { ms: 20 });
  const began = performance.now();
  const answers: string[] = [];
  client.on('data', (text: string) => answers.push(text));
  for (const text of ['a', 'b', 'c']) client.write(text);
  await expect.poll(() => answers.join('')).toMatch(/a.*b.*c/);
  expect(performance.now() - began).toBeGreaterThan(38);
});
