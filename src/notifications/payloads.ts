/** PostgreSQL takes 8,000 bytes, less one. */
const MOST_BYTES = 7_900;

/**
 * Things, as JSON each, in as few payloads of NOTIFY as they fit into.
 * @param head goes with each payload; `name` is what they are called there
 * @param most payloads that are made
 * @returns them, how many things those are, and how many of these no payload takes
 */
export function packed(
  head: object,
  name: string,
  things: readonly string[],
  most = Infinity,
): { payloads: string[]; taken: number; tooLong: number } {
  const begin = `${JSON.stringify(head).slice(0, -1)},"${name}":[`;
  const room = MOST_BYTES - Buffer.byteLength(begin) - 2;
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
      if (payloads.length === most) break;
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
