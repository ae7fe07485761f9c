import { inspect } from 'node:util';

/** What of a fact a log line has as fields: identifiers, names and numbers. */
export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/**
 * A line with its facts as fields, as one object. Whoever prints it gets the text (Nest's console, a template string);
 * whoever writes JSON gets `msg` and the fields: pino and nestjs-pino as their own, Nest's console with `json: true` under
 * `message`. nest-winston takes the text from `message`.
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
