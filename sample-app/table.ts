import Table from 'cli-table3';
import type { Figures, KilledRun, PriorityRow } from './figures.js';
import type { MainJobResult } from './main-job.js';

const LONGEST_NAME = 72;

/** Everything there is to show, as text. */
export function resultTables(
  result: MainJobResult,
  figures: Figures,
  priorities: readonly PriorityRow[],
  killed: readonly KilledRun[],
): string {
  return [
    workTable(result, figures, killed),
    priorityTable(priorities, figures),
    highlights(result),
    refusalTable(result),
  ].join('\n');
}

function workTable(
  { report, closedFolders }: MainJobResult,
  figures: Figures,
  killed: readonly KilledRun[],
): string {
  const { text, binary, unreadable } = report.files;
  const table = plain({ head: ['What happened', ''] });
  table.push(
    ['jobs', `${figures.jobs} done, ${figures.refused} refused at enqueue`],
    ['runs', `${figures.runs.succeeded} succeeded, ${figures.runs.failed} failed`],
    ['retries', figures.retries],
    [
      'killed',
      [
        figures.killed,
        ...killed.map(
          ({ templateCode, reason, ms }) =>
            `${templateCode}: "${reason}" after ${Math.round(ms)} ms`,
        ),
      ].join('  '),
    ],
    ['throughput', `${figures.jobsPerSecond} jobs/s over ${figures.elapsedMs} ms`],
    ['wait', `p50 ${figures.waitP50Ms} ms, p99 ${figures.waitP99Ms} ms from due to started`],
    ['files', `${text} text, ${binary} binary, ${unreadable} unreadable`],
    ['content', `${report.bytes} bytes, ${report.lines} lines, ${report.words} words`],
  );
  if (closedFolders.length > 0)
    table.push([
      'left out',
      `${closedFolders.length} folders that cannot be read, such as ${printable(closedFolders[0]!)}`,
    ]);
  return table.toString();
}

function priorityTable(rows: readonly PriorityRow[], { prioritiesRespected }: Figures): string {
  const table = plain({
    head: ['Priority', 'Jobs', 'Enqueued as no.', 'Started as no.'],
  });
  for (const { priority, jobs, enqueued, started } of rows)
    table.push([
      priority,
      jobs,
      `${enqueued.first} to ${enqueued.last}`,
      `${started.first} to ${started.last}`,
    ]);
  table.push([
    {
      colSpan: 4,
      content: prioritiesRespected
        ? 'respected: lower numbers started first, whenever they were enqueued'
        : 'priorities were NOT respected',
    },
  ]);
  return table.toString();
}

function highlights({ report: { topTerms, largestFiles } }: MainJobResult) {
  const table = plain({ head: ['Top terms', 'Largest files'] });
  table.push([
    topTerms.map(({ term, count }) => `${count}  ${term}`).join('\n'),
    largestFiles.map(({ path, bytes }) => `${bytes}  ${printable(path)}`).join('\n'),
  ]);
  return table.toString();
}

function refusalTable({ refusal }: MainJobResult): string {
  const table = plain({ head: ['Refused at enqueue', 'Why'] });
  for (const { path, message } of refusal.violations) table.push([path, message]);
  return table.toString();
}

/** Without colours: it may be piped anywhere. */
function plain(options: Table.TableConstructorOptions) {
  return new Table({ ...options, style: { head: [], border: [] } });
}

/** A file may be called anything, even what a terminal takes for a command. */
function printable(name: string): string {
  const safe = name.replaceAll(/[\p{Cc}\p{Cf}]/gu, '\u{FFFD}');
  return safe.length > LONGEST_NAME ? `...${safe.slice(3 - LONGEST_NAME)}` : safe;
}
