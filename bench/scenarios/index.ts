import { backlog } from './backlog.js';
import { drain } from './drain.js';
import { enqueue } from './enqueue.js';
import { heldXmin } from './held-xmin.js';
import { latency } from './latency.js';
import { memory } from './memory.js';
import { processes } from './processes.js';
import { transactions } from './transactions.js';
import type { Scenario } from './scenario.js';

export const SCENARIOS: readonly Scenario[] = [
  drain,
  enqueue,
  processes,
  latency,
  backlog,
  memory,
  heldXmin,
  transactions,
];
