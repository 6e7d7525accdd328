--
-- pg_dump carries the users' data: every table of the extension but the statistics, and the sequences behind them.
-- What is not listed would be silently left out. Section 2 (tables).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- # What is dumped
SELECT c.oid::regclass AS object, c.relkind, e.extcondition[i] AS condition
FROM pg_extension e CROSS JOIN generate_subscripts(e.extconfig, 1) i JOIN pg_class c ON c.oid = e.extconfig[i]
WHERE e.extname = 'djactor' ORDER BY 1::text;

-- # What is not: what was counted is no data
SELECT c.oid::regclass AS object
FROM pg_class c
WHERE c.relnamespace = 'djactor'::regnamespace AND c.relkind IN ('r', 'S', 'p', 'm')
	AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'djactor' AND c.oid = ANY (extconfig));
