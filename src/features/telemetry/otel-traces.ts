import type * as Api from '@opentelemetry/api';
import type { Enqueued } from '../../lifecycle/extension-points.js';
import { envelopeOf, isSecret } from '../../context/envelope.js';
import type { JobEvents } from '../../job/events.js';
import type { Outcome } from '../../job/outcome.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import { PACKAGE_VERSION } from '../../job/package-version.js';
import { errorType, faultOf } from './attributes.js';
import type { MeasuredEngine } from './measure.js';

/** Name of the carrier: the property in the envelope of a stored context. */
const CARRIER = 'trace';

/**
 * Makes a span for each call that enqueues, whose trace context travels with its jobs, and one for
 * each run of a handler. Errors of an SDK, sampler or propagator are reported once and disturb no
 * job. @returns stops it
 */
export function traceJobs(
  { extensions, events, settings, engine }: MeasuredEngine,
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
        // A link to an unsampled span leads nowhere, so nothing travels. A child must know that its
        // trace is not sampled.
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
          recordError(api, span, error, false);
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
    // At the outcome and not at the handler's end: a handler that ignores its signal may never end.
    if (begun.span.isRecording())
      process.decided.listen((outcome) =>
        quietly(() => {
          const messages = errorMessages && !isSecret(run, handler.traits);
          endSpan(api, begun.span, outcome, messages);
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

/** One literal, because it is made for each run, sampled or not. */
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

/** @param messages whether the message of a thrown error may be recorded */
function endSpan(api: typeof Api, span: Api.Span, outcome: Outcome, messages: boolean): void {
  const { kind } = outcome;
  span.setAttribute('bildad.outcome', kind);
  if (faultOf(kind)) {
    const hasError = 'error' in outcome;
    span.setAttribute('error.type', hasError ? errorType(outcome.error) : kind);
    if (hasError) recordError(api, span, outcome.error, messages);
    else span.setStatus({ code: api.SpanStatusCode.ERROR, message: kind });
  }
  span.end();
}

function recordError(
  { SpanStatusCode }: typeof Api,
  span: Api.Span,
  error: unknown,
  messages: boolean,
): void {
  const name = errorType(error);
  const quoted = messages && error instanceof Error;
  span.recordException(quoted ? error : { name });
  span.setStatus({ code: SpanStatusCode.ERROR, message: quoted ? error.message : name });
}
