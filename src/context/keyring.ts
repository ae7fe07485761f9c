import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { JobEncryptionKeyError } from '../job/errors.js';
import type { EncryptionSettings } from '../options/settings.js';
import type { Envelope } from './envelope.js';
import type { JsonValue } from '../job/json.js';

const ALGORITHM = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** What an encrypted text belongs to: moved to another job, or taken for another of the three, it does not open. */
export interface Belonging {
  what: 'context' | 'carried context' | 'result';
  jobRunIdentifier: string;
}

/**
 * The keys of this process. A nonce is random: a key is good for four billion texts (NIST SP 800-38D), so rotate it
 * before.
 */
export class Keyring {
  constructor(private readonly settings: EncryptionSettings | undefined) {}

  /** @throws JobEncryptionKeyError when it has no key to encrypt with */
  check(why: string): void {
    if (!this.settings)
      throw new JobEncryptionKeyError(
        `${why} needs the module's option encryption: { keys, current }`,
      );
  }

  has(keyId: string): boolean {
    return this.settings?.keys.has(keyId) === true;
  }

  /** @throws JobEncryptionKeyError when it has no key to encrypt with */
  seal(json: string, belonging: Belonging): Required<Pick<Envelope, 'key' | 'sealed'>> {
    this.check(`encrypting a ${belonging.what}`);
    const { keys, current } = this.settings!;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(ALGORITHM, keys.get(current)!, nonce, {
      authTagLength: TAG_BYTES,
    }).setAAD(bound(belonging));
    const text = [cipher.update(json, 'utf8'), cipher.final()];
    const sealed = Buffer.concat([nonce, cipher.getAuthTag(), ...text]);
    return { key: current, sealed: sealed.toString('base64') };
  }

  /** @throws JobEncryptionKeyError when the key is missing, or it is not what was encrypted with it for this job */
  open({ key, sealed }: Envelope, belonging: Belonging): JsonValue {
    const secret = this.settings?.keys.get(key ?? '');
    if (!secret)
      throw new JobEncryptionKeyError(
        `this process has no key "${key}" for a ${belonging.what}: add it to the module's encryption.keys`,
        key,
      );
    try {
      const bytes = Buffer.from(sealed ?? '', 'base64');
      const cipher = createDecipheriv(ALGORITHM, secret, bytes.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      })
        .setAAD(bound(belonging))
        .setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
      const text = bytes.subarray(NONCE_BYTES + TAG_BYTES);
      const json = Buffer.concat([cipher.update(text), cipher.final()]);
      return JSON.parse(json.toString('utf8')) as JsonValue;
    } catch {
      // What was said may quote what was opened.
      throw new JobEncryptionKeyError(
        `key "${key}" does not open a ${belonging.what}: another key has its id here, or what is stored was changed`,
        key,
      );
    }
  }
}

const bound = ({ what, jobRunIdentifier }: Belonging) =>
  Buffer.from(JSON.stringify([what, jobRunIdentifier]));
