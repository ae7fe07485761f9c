import type { MessageEvent } from '@nestjs/common';
import { Observable } from 'rxjs';
import type { JobUpdate } from '../../job/job-update.js';

/**
 * Converts updates for Nest's `@Sse()`, with Express or Fastify: `type` is the event name, `id` its
 * id, `data` the update. The loop ends when the client disconnects. @param updates
 * `jobs.watch(identifier)`
 */
export function sse(updates: AsyncIterable<JobUpdate>): Observable<MessageEvent> {
  return new Observable((subscriber) => {
    const iterator = updates[Symbol.asyncIterator]();
    const send = async () => {
      for (;;) {
        const { done, value } = await iterator.next();
        if (done || subscriber.closed) return subscriber.complete();
        const { id, type } = value;
        subscriber.next({ id, type, data: value });
      }
    };
    send().catch((error: unknown) => subscriber.error(error));
    return () => void iterator.return?.().catch(() => undefined);
  });
}
