import type { JobUpdate } from 'nestjs-bildad';

/** What comes until `fits`, or until the loop ends by itself. */
export async function until(
  updates: AsyncIterable<JobUpdate>,
  fits: (update: JobUpdate) => boolean = () => false,
): Promise<JobUpdate[]> {
  const seen: JobUpdate[] = [];
  for await (const update of updates) {
    seen.push(update);
    if (fits(update)) break;
  }
  return seen;
}

/** As few words as tell one update from another. */
export function brief(update: JobUpdate): string {
  switch (update.type) {
    case 'queued':
      return `queued ${update.retry}`;
    case 'running':
      return `running ${update.retry}`;
    case 'progress':
      return `progress ${update.fraction} ${update.message}`;
    case 'log':
      return `${update.level} ${update.message}`;
    case 'stream':
      return `chunk ${JSON.stringify(update.chunk)}`;
    case 'gap':
      return `gap ${update.missing}`;
    default:
      return `${update.type} ${update.retry} ${update.result}`;
  }
}
