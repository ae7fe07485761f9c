import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import type { NodeFacts } from './node.sql.js';
import { openHeartbeatConnection } from '../database/connection/dedicated-connection.js';
import type { TransferableOptions } from '../database/connection/dedicated-connection.js';
import type { Tables } from '../database/tables.js';
import { databaseCode } from '../database/database-error.js';
import { PulseMemory } from './memory-sample.js';
import { Pulse, type PulseNews } from './node-heartbeat.js';
import { Watchdog } from './watchdog.js';

/** What this thread is given at its start. */
export interface ThreadData {
  tables: Tables;
  buffer: SharedArrayBuffer;
  connection: TransferableOptions;
  maxBlockMs: number | false;
}

/** What it is told. */
export type ThreadOrder =
  | { order: 'join'; facts: NodeFacts }
  | { order: 'fence'; id: string }
  | { order: 'leave' }
  | { order: 'password'; password: string | undefined };

/** What it says: the pulse's news, with errors as what can cross, and what it asks for. */
export type ThreadNews =
  | Exclude<PulseNews, { kind: 'failed' }>
  | { kind: 'failed'; name: string; code: string | undefined }
  | { kind: 'password' };

const port = parentPort as MessagePort;
const { tables, buffer, connection, maxBlockMs } = workerData as ThreadData;
const memory = new PulseMemory(buffer);
const say = (news: ThreadNews) => port.postMessage(news);

/** Those who wait for the main thread to say the password. */
let waiting: ((password: string | undefined) => void)[] = [];

function password(timeoutMs: number): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const take = (given: string | undefined) => {
      clearTimeout(late);
      resolve(given);
    };
    const late = setTimeout(() => {
      // Whoever asks next has it asked for again: this call may never be answered.
      waiting = waiting.filter((one) => one !== take);
      reject(new Error('no password in time'));
    }, timeoutMs);
    waiting.push(take);
    if (waiting.length === 1) say({ kind: 'password' });
  });
}

const watchdog = new Watchdog(memory, maxBlockMs);
const pulse = new Pulse(
  tables,
  memory,
  async (timeoutMs) =>
    openHeartbeatConnection(
      connection.needsPassword
        ? { ...connection.options, password: await password(timeoutMs) }
        : connection.options,
      timeoutMs,
    ),
  (news) =>
    say(
      news.kind === 'failed'
        ? {
            kind: 'failed',
            name: news.error instanceof Error ? news.error.name : 'Error',
            code: databaseCode(news.error),
          }
        : news,
    ),
  () => watchdog.blockedMs,
);

port.on('message', (message: ThreadOrder) => {
  if (message.order === 'join') pulse.join(message.facts);
  else if (message.order === 'fence') pulse.fence(message.id);
  else if (message.order === 'password') {
    const asked = waiting;
    waiting = [];
    for (const take of asked) take(message.password);
  } else {
    void pulse.leave().then(() => {
      watchdog.stop();
      port.close();
    });
  }
});
