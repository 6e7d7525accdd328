--
-- djactor.stat_history: who may do what with it, and percentiles of its histograms.  wait_target: an option of a type.
-- t/128_history has what is written there, and when.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE ROLE history_owner;
CREATE ROLE history_reader;

-- # Percentiles: of one histogram, and of several
SELECT djactor.stat_percentile('{0,0,0,0,5}', 0.95) AS in_one_bucket;
SELECT part, djactor.stat_percentile(counts, part) AS usec
	FROM (VALUES ('{10}'::int[]), ('{0,0,80}'), ('{0,0,0,0,0,0,0,0,10}')) h (counts), (VALUES (0), (0.1), (0.11), (0.9), (0.91), (1)) p (part)
	GROUP BY part ORDER BY part;
SELECT djactor.stat_percentile(array_fill(2147483647, ARRAY[72]), 1) AS beyond;

-- # Nothing in, nothing out
SELECT djactor.stat_percentile('{}', 0.5) AS empty, djactor.stat_percentile('{0,0}', 0.5) AS zeros,
	djactor.stat_percentile(NULL, 0.5) AS no_counts, djactor.stat_percentile('{1}', NULL) AS no_part;
SELECT djactor.stat_percentile(counts, 0.5) AS some FROM (VALUES (NULL::int[]), ('{0,0,1}'), (NULL)) h (counts);
SELECT djactor.stat_percentile(wait, 0.5) AS no_rows FROM djactor.stat_history WHERE false;

-- # What is no histogram, and no part
CALL fails($$SELECT djactor.stat_percentile('{1,-1}', 0.5)$$);
CALL fails($$SELECT djactor.stat_percentile('{1,NULL}', 0.5)$$);
CALL fails($$SELECT djactor.stat_percentile('{{1,2},{3,4}}', 0.5)$$);
CALL fails($$SELECT djactor.stat_percentile(array_fill(1, ARRAY[73]), 0.5)$$);
CALL fails($$SELECT djactor.stat_percentile('{1}', 1.01)$$);
CALL fails($$SELECT djactor.stat_percentile('{1}', -0.01)$$);
CALL fails($$SELECT djactor.stat_percentile('{1}', 'NaN')$$);

-- # Rights: like djactor.stat; rows may be deleted, not changed
CALL refused($$UPDATE djactor.stat_history SET handled = 1$$);
CALL refused($$TRUNCATE djactor.stat_history$$);
SET ROLE history_reader;
CALL fails($$SELECT count(*) FROM djactor.stat_history$$);
RESET ROLE;
GRANT SELECT ON djactor.stat_history TO history_reader;
SET ROLE history_reader;
SELECT count(*) >= 0 AS may_read FROM djactor.stat_history;
CALL fails($$DELETE FROM djactor.stat_history$$);
RESET ROLE;
SELECT current_database() AS database, current_user AS owner \gset
ALTER DATABASE :"database" OWNER TO history_owner;
SET ROLE history_owner;
SELECT count(*) >= 0 AS may_read FROM djactor.stat_history;
DELETE FROM djactor.stat_history WHERE false;
CALL fails($$INSERT INTO djactor.stat_history SELECT * FROM djactor.stat_history$$);
RESET ROLE;
ALTER DATABASE :"database" OWNER TO :"owner";
REVOKE ALL ON djactor.stat_history FROM history_reader;
DROP ROLE history_owner;
DROP ROLE history_reader;

-- # wait_target
SELECT djactor.define_actor_type('target', 'collect', wait_target => '1.5 s');
SELECT wait_target FROM djactor.actor_type WHERE name = 'target';
SELECT wait_target FROM djactor.stat WHERE actor_type = 'target';
SELECT djactor.alter_actor_type('target', max_attempts => 3);
SELECT wait_target, max_attempts FROM djactor.actor_type WHERE name = 'target';
SELECT djactor.alter_actor_type('target', wait_target => '1 mon');
SELECT wait_target FROM djactor.stat WHERE actor_type = 'target';
CALL fails($$SELECT djactor.alter_actor_type('target', wait_target => '0')$$);
CALL fails($$SELECT djactor.alter_actor_type('target', wait_target => '-2 s')$$);
CALL fails($$SELECT djactor.define_actor_type('other', 'collect', wait_target => '-1 s')$$);
SELECT djactor.alter_actor_type('target', wait_target => NULL);
SELECT wait_target FROM djactor.stat WHERE actor_type = 'target';
SELECT djactor.define_actor_type('target', 'collect', wait_target => '1 s');
SELECT djactor.define_actor_type('target', 'collect');
SELECT wait_target FROM djactor.actor_type WHERE name = 'target';
SELECT djactor.drop_actor_type('target');
