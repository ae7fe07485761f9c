import { startWorker, type Worker } from './worker.js';

export interface NodeMessage {
  event: string;
  node?: string;
  [key: string]: unknown;
}

export interface TestNode extends Worker {
  /** Messages received since the node was ready. */
  messages: NodeMessage[];
  /** The first message of this event that matches, received before or after the call. */
  waitForMessage(event: string, fits?: (message: NodeMessage) => boolean): Promise<NodeMessage>;
}

/** Starts a node (test/fixtures/node.ts) that reports its events. */
export async function startNode(
  databaseUrl: string,
  env: Record<string, string> = {},
): Promise<TestNode> {
  const worker = await startWorker(databaseUrl, env, 'node');
  const messages: NodeMessage[] = [];
  const waiting: ((message: NodeMessage) => void)[] = [];
  worker.process.on('message', (message: NodeMessage) => {
    messages.push(message);
    for (const receive of waiting) receive(message);
  });
  return {
    ...worker,
    messages,
    waitForMessage: (event, fits = () => true) =>
      new Promise((resolve) => {
        const receive = (message: NodeMessage) => {
          if (message.event === event && fits(message)) resolve(message);
        };
        messages.forEach(receive);
        waiting.push(receive);
      }),
  };
}
