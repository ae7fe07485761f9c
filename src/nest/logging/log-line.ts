import { inspect } from 'node:util';

/** The fields of a log line: identifiers, names and numbers. */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/**
 * A log line with its fields in one object. Loggers that print text (Nest's console, a template string) get the text. Loggers
 * that write JSON get `msg` and the fields: pino and nestjs-pino at the top level, Nest's console with `json: true` under
 * `message`. nest-winston reads the text from `message`.
 */
export class LogLine {
  readonly msg: string;

  constructor(text: string, fields: LogFields) {
    this.msg = text;
    Object.assign(this, fields);
  }

  get message(): string {
    return this.msg;
  }

  toString(): string {
    return this.msg;
  }

  [inspect.custom](): string {
    return this.msg;
  }
}
