const CHANGES = new Set(['INSERT', 'UPDATE', 'DELETE', 'MERGE']);

/** Whether what was answered has changed rows. */
export const isChange = (answer: unknown): boolean =>
  [answer].flat().some((one) => CHANGES.has((one as { command?: string }).command ?? ''));

/** As to a statement that was not sent. */
export const nothing = (command: string) => ({
  command,
  rowCount: 0,
  rows: [] as unknown[],
  fields: [] as unknown[],
});
