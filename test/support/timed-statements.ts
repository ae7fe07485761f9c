/**
 * Statements that timers issue during any spec: the kill sweep, the heartbeat, the check of the
 * table version.
 */
export const TIMED_STATEMENTS = /"killRequested"|stranded|schema_versions/;
