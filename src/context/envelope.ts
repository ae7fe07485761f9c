import { inspect } from 'node:util';
import type { JsonValue } from '../job/json.js';

/** Reserved at the top of a context. */
export const ENVELOPE = '$bildad';

/**
 * What the engine has to know of a stored context, or result, before anybody reads it. It stands in the value itself, so
 * that what claims and ends jobs need not look at more columns for the few that have one.
 */
export interface Envelope {
  /** Of the handler's class by whose contract it was written; left out: 0. */
  version?: number;
  /** Its entry has a `startBefore`. */
  startBefore?: true;
  /** What it was enqueued in, by the name of what captured it. */
  carried?: Record<string, JsonValue>;
  /** The same of an encrypted context, as far as it is nobody else's. */
  sealedCarried?: { key: string; sealed: string };
  /** The id of the key it is encrypted with: then `sealed` is nonce, tag and text, in base64. */
  key?: string;
  sealed?: string;
}

/** A stored value in an envelope; `value` unless it is encrypted. */
export interface Enveloped {
  [ENVELOPE]: Envelope;
  value?: JsonValue;
}

/** Undefined for what is stored as it was given, which is nearly everything. */
export function envelopeOf(stored: unknown): Envelope | undefined {
  if (typeof stored !== 'object' || stored === null || !(ENVELOPE in stored)) return undefined;
  const envelope: unknown = stored[ENVELOPE];
  return typeof envelope === 'object' && envelope !== null ? envelope : undefined;
}

/** Stands in entities for an encrypted context or result: prints as redacted, and carries what is stored along. */
export class EncryptedValue {
  readonly #stored: Enveloped;

  constructor(
    stored: Enveloped,
    /** The id of the key it is encrypted with. */
    readonly keyId: string,
  ) {
    this.#stored = stored;
  }

  /** What the database has. */
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

/** A stored value as entities show it: without its envelope, or redacted. */
export function shown(stored: unknown): unknown {
  const envelope = envelopeOf(stored);
  if (!envelope) return stored;
  return typeof envelope.key === 'string'
    ? new EncryptedValue(stored as Enveloped, envelope.key)
    : (stored as Enveloped).value;
}

/** The same of a result, which may have a property of that name: only what is encrypted has an envelope. */
export const shownResult = (stored: unknown): unknown =>
  typeof envelopeOf(stored)?.sealed === 'string' ? shown(stored) : stored;

/**
 * Whether its job's context, and so its result and what it throws, is not to be seen.
 * @param traits of its handler: the context may have been queued before that was to encrypt
 */
export const isSecret = (run: { jobContext: unknown }, traits?: { encrypt: boolean }): boolean =>
  traits?.encrypt === true || envelopeOf(run.jobContext)?.key !== undefined;
