import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { JobEncryptionKeyError } from '../job/errors.js';
import type { EncryptionSettings } from '../options/settings.js';
import type { Envelope } from './envelope.js';
import type { JsonValue } from '../job/json.js';

const ALGORITHM = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Bound to the encrypted text: it cannot be opened for another job, or as another kind of value. */
export interface SealedFor {
  what: 'context' | 'carried context' | 'result';
  jobRunIdentifier: string;
}

/** Encrypts with this process's keys. Nonces are random, so rotate a key before four billion texts (NIST SP 800-38D). */
export class Keyring {
  constructor(private readonly settings: EncryptionSettings | undefined) {}

  /** @throws JobEncryptionKeyError when there is no key */
  check(why: string): void {
    if (!this.settings)
      throw new JobEncryptionKeyError(
        `${why} needs the module's option encryption: { keys, current }`,
      );
  }

  has(keyId: string): boolean {
    return this.settings?.keys.has(keyId) === true;
  }

  /** @throws JobEncryptionKeyError when there is no key */
  seal(json: string, owner: SealedFor): Required<Pick<Envelope, 'key' | 'sealed'>> {
    this.check(`encrypting a ${owner.what}`);
    const { keys, current } = this.settings!;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(ALGORITHM, keys.get(current)!, nonce, {
      authTagLength: TAG_BYTES,
    }).setAAD(ownerData(owner));
    const text = [cipher.update(json, 'utf8'), cipher.final()];
    const sealed = Buffer.concat([nonce, cipher.getAuthTag(), ...text]);
    return { key: current, sealed: sealed.toString('base64') };
  }

  /** @throws JobEncryptionKeyError when the key is missing, or the text was not encrypted with it for this owner */
  open({ key, sealed }: Envelope, owner: SealedFor): JsonValue {
    const secret = this.settings?.keys.get(key ?? '');
    if (!secret)
      throw new JobEncryptionKeyError(
        `this process has no key "${key}" for a ${owner.what}: add it to the module's encryption.keys`,
        key,
      );
    try {
      const bytes = Buffer.from(sealed ?? '', 'base64');
      const cipher = createDecipheriv(ALGORITHM, secret, bytes.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      })
        .setAAD(ownerData(owner))
        .setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
      const text = bytes.subarray(NONCE_BYTES + TAG_BYTES);
      const json = Buffer.concat([cipher.update(text), cipher.final()]);
      return JSON.parse(json.toString('utf8')) as JsonValue;
    } catch {
      // The original error may quote the plain text.
      throw new JobEncryptionKeyError(
        `key "${key}" does not open a ${owner.what}: this process has another key under that id, or the stored value was changed`,
        key,
      );
    }
  }
}

const ownerData = ({ what, jobRunIdentifier }: SealedFor) =>
  Buffer.from(JSON.stringify([what, jobRunIdentifier]));
