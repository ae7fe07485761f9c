import { MOST_NEWS_BYTES } from '../store/news.store.js';

/** Of one statement. */
const MOST_PAYLOADS = 20;

/**
 * Things, as JSON each, in as few payloads as they fit into.
 * @param head goes with each payload; `kind` is what they are called there
 * @returns the payloads of one statement, how many things those are, and how many of them no payload takes
 */
export function packed(
  head: object,
  kind: 'wants' | 'events',
  things: readonly string[],
): { payloads: string[]; taken: number; tooLong: number } {
  const begin = `${JSON.stringify(head).slice(0, -1)},"${kind}":[`;
  const room = MOST_NEWS_BYTES - Buffer.byteLength(begin) - 2;
  const payloads: string[] = [];
  let part: string[] = [];
  let bytes = 0;
  let taken = 0;
  let tooLong = 0;
  for (const thing of things) {
    const size = Buffer.byteLength(thing) + 1;
    if (size <= room && bytes + size > room) {
      payloads.push(`${begin}${part.join(',')}]}`);
      part = [];
      bytes = 0;
      if (payloads.length === MOST_PAYLOADS) break;
    }
    taken++;
    if (size > room) tooLong++;
    else {
      part.push(thing);
      bytes += size;
    }
  }
  if (part.length > 0) payloads.push(`${begin}${part.join(',')}]}`);
  return { payloads, taken, tooLong };
}

/** Of what came from outside: a list of pairs that begin with a name. */
export const pairs = (given: unknown): [string, unknown][] =>
  Array.isArray(given)
    ? given.filter(
        (one): one is [string, unknown] =>
          Array.isArray(one) && typeof one[0] === 'string',
      )
    : [];
