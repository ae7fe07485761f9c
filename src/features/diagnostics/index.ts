import { channel, tracingChannel, type Channel } from 'node:diagnostics_channel';
import { identityOf } from '../../lifecycle/run/execution.js';
import type { ExtensionPoints } from '../../lifecycle/extension-points.js';
import type { Store } from '../../database/store.js';
import type { JobEvents } from '../../job/events.js';
import type { OutcomeKind } from '../../job/outcome.js';
import type { Settings } from '../../options/settings.js';

interface Published {
  events: JobEvents;
  extensions: ExtensionPoints;
  settings: Settings;
  store: Pick<Store, 'tables'>;
}

/** What the channels of `tracing:bildad:run` carry: one object for all of a run. */
export interface RunTrace {
  /** Which engine of the process it is. */
  engine: string;
  schema: string;
  jobRunId: string;
  jobRunIdentifier: string;
  templateCode: string;
  retry: number;
  /** From `asyncStart` on: how the run ends. */
  outcome?: OutcomeKind;
}

const channels = new Map<string, Channel>();

function channelOf(event: string): Channel {
  let known = channels.get(event);
  if (!known) channels.set(event, (known = channel(`bildad:${event}`)));
  return known;
}

const runs = tracingChannel<unknown, RunTrace>('bildad:run');

/**
 * Each event on the channel `bildad:<event>`, and around the handlers `tracing:bildad:run:*`, for who cannot inject: agents
 * and libraries. Without a subscriber that is a comparison.
 */
export function publishEvents({ events, extensions, settings, store }: Published): () => void {
  const teller = { engine: settings.name, schema: store.tables.schema };
  const untap = events.tap((event, payload) => {
    const to = channelOf(event);
    if (to.hasSubscribers) to.publish({ ...payload, ...teller });
  });
  const unregister = extensions.aroundRun.register('diagnostics', (process, _handler, next) => {
    if (!runs.hasSubscribers) return next();
    const told: RunTrace = { ...teller, ...identityOf(process.run) };
    process.decided.listen(({ kind }) => {
      told.outcome = kind;
    });
    return runs.tracePromise(next, told);
  });
  return () => {
    untap();
    unregister();
  };
}
