--
-- The settings djactor.*: what they are by default, their units, and when they can be changed.
-- Section 2 (settings).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- # All settings
SELECT name, boot_val, unit, min_val, max_val, context, vartype
FROM pg_settings WHERE name LIKE 'djactor.%' ORDER BY name COLLATE "C";

-- # Each is described (no rows)
SELECT name FROM pg_settings WHERE name LIKE 'djactor.%' AND COALESCE(short_desc, '') = '';

-- # The server of these tests never polls
SHOW djactor.poll_interval;

-- # They belong to the server's administrator: no session can change them for itself
CALL fails('SET djactor.batch_size = 1');
CALL fails('SET djactor.max_workers = 1');
CALL fails('ALTER ROLE CURRENT_USER SET djactor.batch_time = 1');

-- # A setting that does not exist is refused
CALL fails('SET djactor.no_such_setting = 1');
