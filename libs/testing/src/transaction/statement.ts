/** What a statement means for a transaction. */
export type StatementKind = 'begin' | 'commit' | 'rollback' | 'nothing' | 'other';

/** What a transaction that is only a savepoint cannot have: it would be in force for the test's whole one. */
const OF_ITS_OWN =
  /\bSET LOCAL (?:transaction_isolation|statement_timeout|lock_timeout|idle_in_transaction_session_timeout) = (?:'[^']*'|[^;']*)\s*(?:;|$)/gi;
const LOCAL =
  /\bSET\s+LOCAL\s+(TIME\s+ZONE|[\w.]+)|\bset_config\s*\(\s*(?:'([\w.]+)'|\$(\d+))[^;]*?,\s*true\s*\)/gi;

export interface ReadStatement {
  kind: StatementKind;
  /** What is left to be sent. */
  sql: string;
  /** Names of the settings that it makes for the transaction only. */
  settings: string[];
}

const LEADING = /^(?:\s|\/\*[^]*?\*\/|--[^\n]*\n)+/;

/** What a statement does to a savepoint of the app's own. */
export function savepointVerb(statement: unknown): string | undefined {
  const config = statement as string | { text?: string };
  const text = typeof config === 'string' ? config : (config.text ?? '');
  const word = /^(?:SAVEPOINT|RELEASE|ROLLBACK)\b/i.exec(text.replace(LEADING, ''));
  return word?.[0].toUpperCase();
}

const QUOTED = /'(?:[^']|'')*'|"[^"]*"|\$(\w*)\$[^]*?\$\1\$|--[^\n]*|\/\*[^]*?\*\//g;
const OF_TRANSACTIONS =
  /;\s*(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|ROLLBACK(?!\s+(?:\w+\s+)?TO\b))\b/i;

/** Whether one of several statements in one text, beside the first, begins or ends a transaction: the test's own would end. */
export const endsWithin = (sql: string): boolean =>
  sql.includes(';') &&
  OF_TRANSACTIONS.test(sql.replace(QUOTED, ' ')) &&
  !/\bBEGIN\s+ATOMIC\b/i.test(sql);

/**
 * Whether it is an engine's heartbeat. Its lock on the node's row would last as long as the test, and the node's pulse, on
 * a connection of its own, wait for it until the node takes itself for lost. Leases that are not renewed lose no run
 * meanwhile: a node that beats and renews none is taken for busy.
 */
export const isHeartbeat = (sql: string): boolean => /"job_nodes" SET renewed_until\b/.test(sql);

/** A savepoint stands in for the transaction that a statement begins or ends. */
export function readStatement(sql: string, values: unknown = []): ReadStatement {
  const text = sql.replace(LEADING, '');
  const word = /^[a-z]+/i.exec(text)?.[0].toUpperCase();
  if (word === 'BEGIN' || word === 'START') {
    const semicolon = text.indexOf(';');
    const rest = semicolon < 0 ? '' : text.slice(semicolon + 1);
    return { kind: 'begin', ...kept(rest) };
  }
  if (word === 'COMMIT' || word === 'END') return { kind: 'commit', sql: '', settings: [] };
  if (word === 'ABORT' || (word === 'ROLLBACK' && !/^ROLLBACK\s+(?:\w+\s+)?TO\b/i.test(text)))
    return { kind: 'rollback', sql: '', settings: [] };
  if (word !== 'SET') return { kind: 'other', sql, settings: localSettings(sql, values) };
  if (/^SET\s+TRANSACTION\b/i.test(text)) return { kind: 'nothing', sql: '', settings: [] };
  const left = kept(sql);
  return { kind: left.sql === '' ? 'nothing' : 'other', ...left };
}

function kept(sql: string) {
  const left = sql.replace(OF_ITS_OWN, '').trim();
  return { sql: left, settings: localSettings(left, []) };
}

function localSettings(sql: string, values: unknown): string[] {
  return Array.from(sql.matchAll(LOCAL), ([, set, named, numbered]) => {
    const name = named ?? set;
    if (name === undefined)
      return String((values as unknown[] | undefined)?.[Number(numbered) - 1]);
    return /^TIME\s/i.test(name) ? 'timezone' : name.toLowerCase();
  });
}
