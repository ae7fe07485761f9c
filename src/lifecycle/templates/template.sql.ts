import type { JsonSchema } from '../../job/json.js';
import { asTemplate, operatorSchema, templateColumns } from '../../database/columns.js';
import type { JobTemplate } from '../../database/entities/index.js';
import { rows, type Queryable, type Tables } from '../../database/tables.js';

/** A template as its handler class declares it, or an operator writes it. */
export interface TemplateDeclaration {
  code: string;
  name: string;
  displayOrder: number;
  jobModuleName: string;
  defaultTimeoutMs: number;
  defaultMaxRetries: number;
  defaultPriority: number;
  defaultBackoff: unknown;
  jobContextSchema: unknown;
  contextVersion: number;
  encrypt: boolean;
}

const COLUMNS: Record<
  Exclude<keyof TemplateDeclaration, 'code'>,
  [column: string, type: string]
> = {
  name: ['name', 'text'],
  displayOrder: ['display_order', 'integer'],
  jobModuleName: ['job_module_name', 'text'],
  defaultTimeoutMs: ['default_timeout_ms', 'bigint'],
  defaultMaxRetries: ['default_max_retries', 'integer'],
  defaultPriority: ['default_priority', 'integer'],
  defaultBackoff: ['default_backoff', 'jsonb'],
  jobContextSchema: ['job_context_schema', 'jsonb'],
  contextVersion: ['context_version', 'integer'],
  encrypt: ['encrypt', 'boolean'],
};
const PROPERTIES = Object.entries(COLUMNS);

/** Default values of a template. The default name is the code. */
export const TEMPLATE_DEFAULTS = {
  displayOrder: 0,
  jobModuleName: '',
  defaultTimeoutMs: 3_600_000,
  defaultMaxRetries: 3,
  defaultPriority: 5,
  defaultBackoff: null,
  jobContextSchema: {},
  contextVersion: 0,
  encrypt: false,
} as const;

/**
 * Creates or updates templates by code, in one statement. `declared` holds the last declaration of the class: only fields
 * that the code changed since are written, so a deploy does not undo the changes of an operator. Before the first
 * declaration the defaults count as declared.
 */
export async function declareTemplates(
  db: Queryable,
  { templates }: Tables,
  declarations: TemplateDeclaration[],
): Promise<void> {
  const value = ([property, [, type]]: (typeof PROPERTIES)[number]) =>
    type === 'jsonb' ? `nullif(d -> '${property}', 'null')` : `(d ->> '${property}')::${type}`;
  await rows(
    db,
    `WITH input AS (SELECT d FROM unnest($1::jsonb[]) AS t (d)),
     saved AS (
       INSERT INTO ${templates} AS t (code, declared, ${PROPERTIES.map(([, [column]]) => column).join(', ')})
       SELECT d ->> 'code', d, ${PROPERTIES.map(value).join(', ')} FROM input ORDER BY d ->> 'code'
       ON CONFLICT (code) DO UPDATE SET declared = excluded.declared, updated_at = clock_timestamp(),
         ${PROPERTIES.map(
           ([property, [column]]) =>
             `${column} = CASE WHEN coalesce(t.declared -> '${property}', $2::jsonb -> '${property}', to_jsonb(t.code)) IS DISTINCT FROM excluded.declared -> '${property}'
                THEN excluded.${column} ELSE t.${column} END`,
         ).join(', ')}
       WHERE t.declared IS DISTINCT FROM excluded.declared
       RETURNING *
     )
     SELECT id FROM saved`,
    [
      declarations.map((declaration) => JSON.stringify(declaration)),
      JSON.stringify(TEMPLATE_DEFAULTS),
    ],
  );
}

/** @returns null if another template has the code */
export async function insertTemplate(
  db: Queryable,
  { templates }: Tables,
  template: TemplateDeclaration & { active: boolean },
): Promise<JobTemplate | null> {
  const columns = PROPERTIES.map(([, [column]]) => column);
  const values = PROPERTIES.map(([property, [, type]]) => {
    const value = template[property as keyof TemplateDeclaration];
    return type === 'jsonb' && value !== null ? JSON.stringify(value) : value;
  });
  const [row] = await rows(
    db,
    `WITH t AS (
       INSERT INTO ${templates} (code, active, ${columns.join(', ')})
       VALUES ($1, $2, ${columns.map((_column, index) => `$${index + 3}`).join(', ')})
       ON CONFLICT (code) DO NOTHING RETURNING *
     ) SELECT ${templateColumns('t')} FROM t`,
    [template.code, template.active, ...values],
  );
  return row ? asTemplate(row) : null;
}

export async function findTemplate(
  db: Queryable,
  { templates }: Tables,
  by: { id: string } | { code: string },
): Promise<JobTemplate | null> {
  const [condition, value] = 'id' in by ? ['t.id = $1', by.id] : ['t.code = $1', by.code];
  const [row] = await rows(
    db,
    `SELECT ${templateColumns('t')} FROM ${templates} t WHERE ${condition}`,
    [value],
  );
  return row ? asTemplate(row) : null;
}

/** A template, and its schema if an operator wrote it. */
export interface KnownTemplate {
  template: JobTemplate;
  operatorSchema: JsonSchema | null;
}

export async function findKnownTemplate(
  db: Queryable,
  { templates }: Tables,
  code: string,
): Promise<KnownTemplate | null> {
  const [row] = await rows<JobTemplate & Pick<KnownTemplate, 'operatorSchema'>>(
    db,
    `SELECT ${templateColumns('t')}, ${operatorSchema('t')} FROM ${templates} t WHERE t.code = $1`,
    [code],
  );
  if (!row) return null;
  const { operatorSchema: schema, ...template } = row;
  return { template: asTemplate(template), operatorSchema: schema };
}

export type TemplateChanges = Partial<Omit<TemplateDeclaration, 'code'>> & {
  active?: boolean;
};

/** @returns null if there is no such template */
export async function changeTemplate(
  db: Queryable,
  { templates }: Tables,
  id: string,
  changes: TemplateChanges,
): Promise<JobTemplate | null> {
  const sets = ['updated_at = clock_timestamp()'];
  const values: unknown[] = [id];
  for (const [property, [column, type]] of [
    ...PROPERTIES,
    ['active', ['active', 'boolean']],
  ] as const) {
    const value = changes[property as keyof TemplateChanges];
    if (value === undefined) continue;
    values.push(type === 'jsonb' && value !== null ? JSON.stringify(value) : value);
    sets.push(`${column} = $${values.length}::${type}`);
  }
  const [row] = await rows(
    db,
    `WITH t AS (UPDATE ${templates} SET ${sets.join(', ')} WHERE id = $1 RETURNING *)
     SELECT ${templateColumns('t')} FROM t`,
    values,
  );
  return row ? asTemplate(row) : null;
}

/**
 * Deletes a template that no queue entry and no run refers to; to be called inside a transaction. The
 * lock waits for an enqueue that holds the row FOR KEY SHARE, and only a statement begun after that
 * sees what the enqueue committed.
 */
export async function deleteTemplate(
  transaction: Queryable,
  { templates, entries, runs }: Tables,
  id: string,
): Promise<boolean> {
  await transaction.query(`SELECT FROM ${templates} WHERE id = $1 FOR UPDATE`, [id]);
  const deleted = await rows(
    transaction,
    `WITH deleted AS (
       DELETE FROM ${templates} t WHERE t.id = $1
         AND NOT EXISTS (SELECT FROM ${entries} e WHERE e.job_template_id = t.id)
         AND NOT EXISTS (SELECT FROM ${runs} r WHERE r.job_template_id = t.id)
       RETURNING t.id
     ) SELECT id FROM deleted`,
    [id],
  );
  return deleted.length > 0;
}
