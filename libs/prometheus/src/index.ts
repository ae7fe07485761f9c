export { collectBildad } from './registry-sink.js';
export {
  BildadPrometheusModule,
  type BildadPrometheusOptions,
} from './bildad-prometheus.module.js';
