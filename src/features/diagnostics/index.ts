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

/** The message of the channels `tracing:bildad:run:*`: one object for all events of a run. */
export interface RunTrace {
  /** Name of the engine. */
  engine: string;
  schema: string;
  jobRunId: string;
  jobRunIdentifier: string;
  templateCode: string;
  retry: number;
  /** Set from `asyncStart` on. */
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
 * Publishes each event on the channel `bildad:<event>` and handler calls on `tracing:bildad:run:*`,
 * for agents and libraries that cannot inject. Without a subscriber it costs a comparison.
 */
export function publishEvents({ events, extensions, settings, store }: Published): () => void {
  const source = { engine: settings.name, schema: store.tables.schema };
  const untap = events.tap((event, payload) => {
    const to = channelOf(event);
    if (to.hasSubscribers) to.publish({ ...payload, ...source });
  });
  const unregister = extensions.aroundRun.register('diagnostics', (process, _handler, next) => {
    if (!runs.hasSubscribers) return next();
    const message: RunTrace = { ...source, ...identityOf(process.run) };
    process.decided.listen(({ kind }) => {
      message.outcome = kind;
    });
    return runs.tracePromise(next, message);
  });
  return () => {
    untap();
    unregister();
  };
}
