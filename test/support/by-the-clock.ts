/** Statements that come by the clock, whatever a spec does: the killer's sweep, the heartbeat, the look at the tables' version. */
export const BY_THE_CLOCK = /"killRequested"|stranded|schema_versions/;
