import type { JobEventMap } from './events.js';

interface Traits {
  /** It belongs to a job: it has a `templateCode`. */
  ofJob?: true;
  /** It is plain data, and may be sent to other nodes. */
  travels?: true;
}

const JOB = { ofJob: true, travels: true } as const;
const JOB_HERE = { ofJob: true } as const;

/** How each event may be filtered and delivered. */
export const EVENT_TRAITS: Readonly<Record<keyof JobEventMap, Traits>> = {
  'entry.enqueued': JOB,
  'entry.quarantined': { travels: true },
  'entry.released': JOB_HERE,
  'run.started': JOB,
  'run.progress': JOB,
  'run.log': JOB_HERE,
  'run.stream': JOB_HERE,
  'run.finished': JOB,
  'run.succeeded': JOB,
  'run.failed': JOB,
  'run.timedOut': JOB,
  'run.killed': JOB,
  'run.expired': JOB,
  'run.crashed': JOB,
  'run.stopped': JOB,
  'run.snoozed': JOB,
  'run.cancelled': JOB,
  'run.missed': JOB,
  'run.finishRejected': JOB,
  'process.abandoned': JOB,
  'process.killed': JOB,
  'process.unhandledRejection': JOB_HERE,
  'process.ended': JOB,
  'engine.pass': { travels: true },
  'engine.unrunnable': {},
  'engine.listening': {},
  'engine.outdated': {},
  'engine.error': {},
  'database.lost': {},
  'database.restored': {},
  'node.joined': { travels: true },
  'node.fenced': { travels: true },
  'node.lost': { travels: true },
};
