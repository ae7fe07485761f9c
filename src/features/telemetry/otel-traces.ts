import type * as Api from '@opentelemetry/api';
import type { Enqueued, ExtensionPoints } from '../../lifecycle/extension-points.js';
import { envelopeOf, isSecret } from '../../context/envelope.js';
import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { Settings } from '../../options/settings.js';
import { PACKAGE_VERSION } from '../../job/package-version.js';
import { errorType } from './error-type.js';
import { endRun, failed } from './span-ends.js';

/** Its property in the envelope of a stored context. */
const CARRIER = 'trace';

interface Traced {
  extensions: ExtensionPoints;
  events: JobEvents;
  settings: Settings;
  engine: string;
}

/**
 * A span for each call that enqueues, whose context travels with its jobs, and one for each run of a handler. What an SDK,
 * a sampler or a propagator throws is reported once, and harms no job. @returns how to end that
 */
export function traceJobs(
  { extensions, events, settings, engine }: Traced,
  api: typeof Api,
): () => void {
  const { relation, errorMessages } = settings.telemetry;
  const { context, propagation, trace, SpanKind, TraceFlags, ROOT_CONTEXT } = api;
  const tracer = trace.getTracer('nestjs-bildad', PACKAGE_VERSION);
  const quietly = reportFirstError(events);

  const unregisterCarrier = extensions.carriers.register(CARRIER, {
    name: CARRIER,
    ofCall: true,
    capture: () =>
      quietly(() => {
        const active = context.active();
        // A link to what nobody has recorded leads nowhere; a part of a trace is not recorded either.
        const sampled =
          relation === 'parent' ||
          ((trace.getSpanContext(active)?.traceFlags ?? 0) & TraceFlags.SAMPLED) !== 0;
        if (!sampled && !propagation.getBaggage(active)) return undefined;
        const carrier: Record<string, string> = {};
        propagation.inject(active, carrier);
        return Object.keys(carrier).length > 0 ? carrier : undefined;
      }),
  });

  const unregisterEnqueue = extensions.aroundEnqueue.register('tracing', (call, next) => {
    const active = context.active();
    const span = quietly(() =>
      tracer.startSpan(
        `send ${call.templateCode}`,
        {
          kind: SpanKind.PRODUCER,
          attributes: {
            'messaging.system': 'bildad',
            'messaging.destination.name': call.templateCode,
            'messaging.operation.type': 'send',
            'messaging.operation.name': 'send',
            'bildad.engine': engine,
          },
        },
        active,
      ),
    );
    if (!span) return next();
    return context.with(trace.setSpan(active, span), async () => {
      try {
        const made = await next();
        quietly(() => span.setAttributes(madeOf(made)));
        return made;
      } catch (error) {
        quietly(() => {
          span.setAttribute('error.type', errorType(error));
          failed(api, span, error, false);
        });
        throw error;
      } finally {
        quietly(() => span.end());
      }
    });
  });

  const unregisterRun = extensions.aroundRun.register('tracing', (process, handler, next) => {
    const { run } = process;
    const begun = quietly(() => {
      const carried = envelopeOf(run.jobContext)?.carried?.[CARRIER];
      const sent =
        typeof carried === 'object' && carried !== null
          ? propagation.extract(ROOT_CONTEXT, carried)
          : ROOT_CONTEXT;
      const sender = trace.getSpanContext(sent);
      const linked = relation === 'link' && sender;
      const around = linked ? trace.deleteSpan(sent) : sent;
      const span = tracer.startSpan(
        `process ${run.templateCode}`,
        {
          kind: SpanKind.CONSUMER,
          attributes: ofRun(run, engine),
          links: linked ? [{ context: sender }] : NO_LINKS,
        },
        around,
      );
      return { span, within: trace.setSpan(around, span) };
    });
    if (!begun) return next();
    // Not when its handler has ended: one that does not stop may never.
    if (begun.span.isRecording())
      process.decided.listen((outcome) =>
        quietly(() => {
          const messages = errorMessages && !isSecret(run, handler.traits);
          endRun(api, begun.span, outcome, messages);
        }),
      );
    return context.with(begun.within, next);
  });

  return () => {
    unregisterCarrier();
    unregisterEnqueue();
    unregisterRun();
  };
}

const NO_LINKS: Api.Link[] = [];

/** One literal: it is made for each run, sampled or not. */
const ofRun = (run: ClaimedRun, engine: string): Api.Attributes => ({
  'messaging.system': 'bildad',
  'messaging.destination.name': run.templateCode,
  'messaging.operation.type': 'process',
  'messaging.operation.name': 'process',
  'messaging.message.id': run.jobRunIdentifier,
  'bildad.engine': engine,
  'bildad.run_id': run.jobRunId,
  'bildad.retry': run.retry,
});

function madeOf(made: Enqueued | readonly Enqueued[]): Api.Attributes {
  if (Array.isArray(made)) return { 'messaging.batch.message_count': made.length };
  const { jobRunIdentifier, deduplicated } = made as Enqueued;
  return {
    'messaging.message.id': jobRunIdentifier,
    ...(deduplicated && { 'bildad.deduplicated': true }),
  };
}

/** Runs what an SDK may throw from. Only the first error is reported. */
function reportFirstError(events: JobEvents) {
  let reported = false;
  return <T>(work: () => T): T | undefined => {
    try {
      return work();
    } catch (error) {
      if (!reported) {
        reported = true;
        events.emit('engine.error', { doing: 'tracing a job', error });
      }
      return undefined;
    }
  };
}
