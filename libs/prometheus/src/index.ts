export { collectBildad } from './collect-bildad.js';
export {
  BildadPrometheusModule,
  type BildadPrometheusOptions,
} from './bildad-prometheus.module.js';
