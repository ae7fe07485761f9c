import { createSecretKey, type KeyObject } from 'node:crypto';
import { BildadConfigError } from '../job/errors.js';
import { kindOf, text } from './option-values.js';

export interface EncryptionOptions {
  /**
   * 32 random bytes each (`openssl rand -base64 32`), as base64 or a Buffer, by ids of your choice. An id stands for
   * one key for ever: it is stored with what the key encrypts. Those that are no longer current open what is there.
   */
  keys: Record<string, string | Buffer>;
  /** The id of the key that encrypts. */
  current: string;
}

/** Key objects: what prints settings prints no key. */
export interface EncryptionSettings {
  keys: ReadonlyMap<string, KeyObject>;
  current: string;
}

const BYTES = 32;

/** @throws BildadConfigError naming the wrong part, and never a key */
export function readEncryption(options: EncryptionOptions): EncryptionSettings {
  const given: unknown = options;
  if (!isObject(given) || !isObject(given['keys']))
    throw new BildadConfigError(
      'encryption',
      '{ keys: { [id]: 32 bytes as base64 or a Buffer }, current: id }',
      typeof given,
    );
  for (const name of Object.keys(given))
    if (name !== 'keys' && name !== 'current')
      throw new BildadConfigError(
        `encryption.${name}`,
        'no such option; known are keys, current',
        typeof given[name],
      );
  const keys = new Map(
    Object.entries(given['keys']).map(([id, key]) => [
      text(id, 'encryption.keys', 100),
      readKey(id, key),
    ]),
  );
  const { current } = given;
  if (typeof current !== 'string' || !keys.has(current))
    throw new BildadConfigError(
      'encryption.current',
      `the id of one of encryption.keys: ${[...keys.keys()].join(', ') || 'there are none'}`,
      kindOf(current),
    );
  return { keys, current };
}

function readKey(id: string, given: unknown): KeyObject {
  const bytes =
    typeof given === 'string' && /^[A-Za-z0-9+/_-]+={0,2}$/.test(given)
      ? Buffer.from(given, 'base64')
      : given;
  if (!(bytes instanceof Uint8Array) || bytes.length !== BYTES)
    throw new BildadConfigError(
      `encryption.keys.${id}`,
      `${BYTES} bytes as base64 or a Buffer`,
      bytes instanceof Uint8Array ? `${bytes.length} bytes` : typeof given,
    );
  return createSecretKey(Buffer.from(bytes));
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
