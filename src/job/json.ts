export type JsonValue =
  null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue };

/** A JSON Schema, as stored in a template's `jobContextSchema`. */
export type JsonSchema = Record<string, unknown>;
