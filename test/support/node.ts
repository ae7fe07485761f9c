import { startWorker, type Worker } from './worker.js';

export interface NodeNews {
  event: string;
  node?: string;
  [key: string]: unknown;
}

export interface TestNode extends Worker {
  /** What it has said since it was ready. */
  news: NodeNews[];
  /** The first that it says, or has said, of this event and that fits. */
  heard(event: string, fits?: (news: NodeNews) => boolean): Promise<NodeNews>;
}

/** A node (test/fixtures/node.ts) that tells what happens to it. */
export async function startNode(
  databaseUrl: string,
  env: Record<string, string> = {},
): Promise<TestNode> {
  const worker = await startWorker(databaseUrl, env, 'node');
  const news: NodeNews[] = [];
  const waiting: ((said: NodeNews) => void)[] = [];
  worker.process.on('message', (said: NodeNews) => {
    news.push(said);
    for (const hear of waiting) hear(said);
  });
  return {
    ...worker,
    news,
    heard: (event, fits = () => true) =>
      new Promise((resolve) => {
        const hear = (said: NodeNews) => {
          if (said.event === event && fits(said)) resolve(said);
        };
        news.forEach(hear);
        waiting.push(hear);
      }),
  };
}
