const encoder = new TextEncoder();
/** As long as a line may be. */
const scratch = new Uint8Array(65_536);
/** Of UTF-8, for a unit of a text. */
const MOST_BYTES = 3;

/** Bytes of a text as UTF-8. */
export const bytesOf = (text: string): number => Buffer.byteLength(text);

/** As much of it as takes at most so many bytes, up to 65,536, and ends where a character does. */
export function cutBytes(text: string, most: number): string {
  if (text.length * MOST_BYTES <= most) return text;
  const { read, written } = encoder.encodeInto(text, scratch.subarray(0, most));
  if (read === text.length) return text;
  // A slice would hold all of the text.
  return Buffer.from(scratch.buffer, 0, written).toString();
}
