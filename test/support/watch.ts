import type { JobUpdate } from 'nestjs-bildad';

/** Collects updates until one matches or the iteration ends. */
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

/** A short text that identifies an update. */
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
