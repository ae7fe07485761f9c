/** Beats in one lease: four may be lost before a living run, or node, counts as lost. */
export const BEATS_PER_LEASE = 5;
