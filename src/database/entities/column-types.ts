import { EncryptedValue, toEntityContext, toEntityResult } from '../../context/envelope.js';

/** The database's clock sets times. */
export const DB_TIME = {
  type: 'timestamptz',
  default: () => 'clock_timestamp()',
} as const;

/** Read as text: a bigint does not fit a JavaScript number. */
export const BIGINT = { type: 'bigint' } as const;

/** A bigint of milliseconds does fit. */
export const MILLISECONDS = {
  type: 'bigint',
  transformer: {
    to: (value: unknown) => value,
    from: (value: unknown) => (typeof value === 'string' ? Number(value) : value),
  },
} as const;

const stored = (value: unknown) =>
  value instanceof EncryptedValue ? EncryptedValue.storedIn(value) : value;

/** Read without its envelope, and redacted if it is encrypted. */
export const CONTEXT = {
  type: 'jsonb',
  transformer: { to: stored, from: toEntityContext },
} as const;

/** Redacted if it is encrypted. */
export const RESULT = {
  type: 'jsonb',
  transformer: { to: stored, from: toEntityResult },
} as const;
