/** What a statement means for a transaction. */
export type StatementKind =
  'begin' | 'commit' | 'rollback' | 'nothing' | 'other';

/** What a transaction that is only a savepoint cannot have: it would be in force for the test's whole one. */
const OF_ITS_OWN =
  /\bSET LOCAL (?:transaction_isolation|statement_timeout|lock_timeout|idle_in_transaction_session_timeout) = (?:'[^']*'|[^;']*)\s*(?:;|$)/gi;
const CUSTOM = /\bSET LOCAL (\w+\.\w+) = /gi;

export interface ReadStatement {
  kind: StatementKind;
  /** What is left to be sent. */
  sql: string;
  /** Settings of the app's own that it makes for the transaction. */
  settings: string[];
}

const LEADING = /^(?:\s|\/\*[^]*?\*\/|--[^\n]*\n)+/;

/** What a statement does to a savepoint of the app's own. */
export function savepointVerb(statement: unknown): string | undefined {
  const config = statement as string | { text?: string };
  const text = typeof config === 'string' ? config : (config.text ?? '');
  const word = /^(?:SAVEPOINT|RELEASE|ROLLBACK)\b/i.exec(
    text.replace(LEADING, ''),
  );
  return word?.[0].toUpperCase();
}

/** A savepoint stands in for the transaction that a statement begins or ends. */
export function readStatement(sql: string): ReadStatement {
  const text = sql.replace(LEADING, '');
  const word = /^[a-z]+/i.exec(text)?.[0].toUpperCase();
  if (word === 'BEGIN' || word === 'START') {
    const semicolon = text.indexOf(';');
    const rest = semicolon < 0 ? '' : text.slice(semicolon + 1);
    return { kind: 'begin', ...kept(rest) };
  }
  if (word === 'COMMIT' || word === 'END')
    return { kind: 'commit', sql: '', settings: [] };
  if (
    word === 'ABORT' ||
    (word === 'ROLLBACK' && !/^ROLLBACK\s+(?:\w+\s+)?TO\b/i.test(text))
  )
    return { kind: 'rollback', sql: '', settings: [] };
  if (word !== 'SET') return { kind: 'other', sql, settings: [] };
  if (/^SET\s+TRANSACTION\b/i.test(text))
    return { kind: 'nothing', sql: '', settings: [] };
  const left = kept(sql);
  return { kind: left.sql === '' ? 'nothing' : 'other', ...left };
}

function kept(sql: string) {
  const left = sql.replace(OF_ITS_OWN, '').trim();
  const settings = Array.from(left.matchAll(CUSTOM), ([, name]) => name!);
  return { sql: left, settings };
}
