import { inspect } from 'node:util';
import type { JsonValue } from '../job/json.js';

/** Reserved as a top-level key of contexts. */
export const ENVELOPE = '$bildad';

/**
 * Metadata of a stored context or result. Few jobs have any, so it is stored in the value itself instead of in more
 * columns for all jobs.
 */
export interface Envelope {
  /** The version of the class that wrote it. Default 0. */
  version?: number;
  /** The entry has a `startBefore`. */
  startBefore?: true;
  /** Captured values, by the name of their carrier. */
  carried?: Record<string, JsonValue>;
  /** Captured values that are encrypted with the context. */
  sealedCarried?: { key: string; sealed: string };
  /** The id of the key that encrypted the value. `sealed` is nonce, tag and text in base64. */
  key?: string;
  sealed?: string;
}

/** The values that the carriers captured for one call, by the name of their carrier. */
export interface Captured {
  /** Readable beside an encrypted context. */
  ofCall?: Record<string, JsonValue>;
  /** Encrypted with the context. */
  ofJob?: Record<string, JsonValue>;
}

/** A stored value with its envelope. `value` is missing if it is encrypted. */
export interface Enveloped {
  [ENVELOPE]: Envelope;
  value?: JsonValue;
}

/** Undefined for values without an envelope, which most are. */
export function envelopeOf(stored: unknown): Envelope | undefined {
  if (typeof stored !== 'object' || stored === null || !(ENVELOPE in stored)) return undefined;
  const envelope: unknown = stored[ENVELOPE];
  return typeof envelope === 'object' && envelope !== null ? envelope : undefined;
}

/** Represents an encrypted context or result in entities. It prints as redacted, and saving it keeps the stored value. */
export class EncryptedValue {
  readonly #stored: Enveloped;

  constructor(
    stored: Enveloped,
    /** The id of the key that encrypted it. */
    readonly keyId: string,
  ) {
    this.#stored = stored;
  }

  /** The value in the database. */
  static storedIn(value: EncryptedValue): Enveloped {
    return value.#stored;
  }

  toJSON(): string {
    return `[encrypted with ${this.keyId}]`;
  }

  toString(): string {
    return this.toJSON();
  }

  [inspect.custom](): string {
    return this.toJSON();
  }
}

/** A stored context as entities show it: without its envelope, or redacted. */
export function toEntityContext(stored: unknown): unknown {
  const envelope = envelopeOf(stored);
  if (!envelope) return stored;
  return typeof envelope.key === 'string'
    ? new EncryptedValue(stored as Enveloped, envelope.key)
    : (stored as Enveloped).value;
}

/** A stored result as entities show it. Results may have a property with the envelope's name; only encrypted ones have one. */
export const toEntityResult = (stored: unknown): unknown =>
  typeof envelopeOf(stored)?.sealed === 'string' ? toEntityContext(stored) : stored;

/**
 * Whether the run's context, result and errors must not be shown.
 * @param traits of its handler, which may encrypt although the context was enqueued before it did
 */
export const isSecret = (run: { jobContext: unknown }, traits?: { encrypt: boolean }): boolean =>
  traits?.encrypt === true || envelopeOf(run.jobContext)?.key !== undefined;
