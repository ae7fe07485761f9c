/** A backlog in Bildad's tables, faster than its own bulk call makes a million. */
export const waiting = (jobs: number) => `
  INSERT INTO bildad.job_queue_entries (job_template_id, job_run_identifier, timeout_ms, max_retries, job_context)
  SELECT t.id, uuidv7()::text, t.default_timeout_ms, t.default_max_retries,
    jsonb_build_object('n', n, 'text', repeat('x', 80))
  FROM bildad.job_templates t, generate_series(1, ${jobs}) n WHERE t.code = 'NOOP' ORDER BY n`;
