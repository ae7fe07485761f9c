export {
  BildadHealthIndicator,
  type BildadLivenessLimits,
  type BildadReadinessLimits,
} from './bildad-health.indicator.js';
