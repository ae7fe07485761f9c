import { randomFillSync, randomInt } from 'node:crypto';
import { v7 as uuidv7 } from 'uuid';

const BYTES = 16;
/** A call for random bytes takes 8 µs whether it asks for 16 of them or for 4,096. */
const pool = Buffer.allocUnsafe(256 * BYTES);
let used = pool.length;
/** Orders what is named within one millisecond. */
let sequence = randomInt(2 ** 31);

/** A job's name where the caller gives none: a UUID of version 7, which indexes in the order of time. */
export function newIdentifier(): string {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  sequence = (sequence + 1) >>> 0;
  const random = pool.subarray(used, (used += BYTES));
  return uuidv7({ random, seq: sequence });
}
