import { BildadError } from './errors.js';

/** A key of the module's option `encryption` is missing, or is not the one that something was encrypted with. */
export class JobEncryptionKeyError extends BildadError {
  readonly code = 'JOB_ENCRYPTION_KEY';

  constructor(
    readonly why: string,
    /** Undefined where there is none at all. */
    readonly keyId?: string,
  ) {
    super(`encryption: ${why}`);
  }
}

/** The context was written by a deploy that is newer than this process: it goes back to the queue. */
export class JobContextVersionError extends BildadError {
  readonly code = 'JOB_CONTEXT_VERSION';

  constructor(
    readonly templateCode: string,
    readonly version: number,
    readonly known: number,
  ) {
    super(`the context of a ${templateCode} is of version ${version}, this process knows ${known}`);
  }
}
