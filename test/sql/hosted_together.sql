--
-- Contract 5 for hosted turns: what one transaction sends to many actors becomes visible together, whoever of them runs first, and wherever.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true), djactor.define_actor_type('hosted.other', NULL, hosted => true),
	djactor.define_actor_type('inside', 'collect');
SELECT djactor.host_open('{hosted,hosted.other}') > 0 AS opened;
-- what is there of the mail that this transaction sees: a turn is about to run
CREATE FUNCTION seen() RETURNS TABLE (actor_type text, waiting bigint) LANGUAGE sql AS $$
	SELECT actor_type, count(*) FROM djactor.message GROUP BY 1 ORDER BY 1
$$;

-- # The first turn of all finds all the others' mail sent, its own included
SELECT djactor.pause('inside');
BEGIN;
SELECT put('hosted', 'a', 'to a'), put('hosted', 'b', 'to b');
SELECT put('hosted.other', 'c', 'to c');
SELECT count(djactor.send('inside', 'i ' || i)) AS sent FROM generate_series(1, 100) i;
COMMIT;
SELECT count(*) AS mailboxes FROM claims();
BEGIN;
SELECT begin_turn('to a');
SELECT * FROM seen();
CALL djactor.end_turn('"first"');
COMMIT;
BEGIN;
SELECT begin_turn('to c');
SELECT * FROM seen();
CALL djactor.end_turn();
SELECT begin_turn('to b');
SELECT * FROM seen();
CALL djactor.end_turn();
COMMIT;

-- # What a turn sends comes together, too: with the turn's commit, and not at all without
SELECT put('hosted', 'a', 'sends');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('sends');
SELECT put('hosted', 'b', 'from a'), put('hosted', 'd', 'from a, too');
SELECT put('hosted.other', 'c', 'and to c');
SELECT count(djactor.send('inside', 'j ' || i)) AS sent FROM generate_series(1, 10) i;
CALL djactor.end_turn();
ROLLBACK;
SELECT * FROM claims();
SELECT * FROM seen();
BEGIN;
SELECT begin_turn('sends');
SELECT put('hosted', 'b', 'from a'), put('hosted', 'd', 'from a, too');
SELECT put('hosted.other', 'c', 'and to c');
SELECT count(djactor.send('inside', 'j ' || i)) AS sent FROM generate_series(1, 10) i;
CALL djactor.end_turn();
COMMIT;
SELECT * FROM claims();
SELECT * FROM seen();
SELECT complete('from a', 'from a, too', 'and to c');

-- # So does what many turns send that end in one transaction
SELECT put('hosted', k, k || ' sends') FROM unnest('{a,b}'::text[]) k;
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('a sends');
SELECT put('hosted.other', 'c', 'a to c');
CALL djactor.end_turn();
SELECT begin_turn('b sends');
SELECT put('hosted.other', 'd', 'b to d');
CALL djactor.end_turn();
COMMIT;
SELECT * FROM claims();
SELECT complete('a to c', 'b to d');

SELECT claims FROM djactor.host;
SELECT djactor.host_close();
SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name IN ('hosted', 'hosted.other', 'inside');
DROP FUNCTION seen;
\i :tests/sql/include/hosted_end.sql
