--
-- How far a turn is: progress(), progress_of(), the view djactor.progress.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('progress', 'act', max_attempts => 1, breaker_failures => NULL), djactor.define_actor_type('progress.hosted', NULL, hosted => true);
CREATE FUNCTION runs(done int) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('do', format('SELECT djactor.progress(''{"done": %s}''), pg_sleep(300)', done)) $$;

-- # Seen at once, though the turn is not committed; gone with the turn
SELECT put('a', 'progress', 'a', runs(1)), put('b', 'progress', 'b', runs(2));
CALL wait_until('(SELECT count(*) = 2 FROM djactor.progress)');
SELECT name, value, said_at <= clock_timestamp() AS before_now FROM djactor.progress JOIN sent ON id = message_id ORDER BY 1;
SELECT djactor.progress_of(id_of('a')), djactor.progress_of(id_of('b')), djactor.progress_of(-1), djactor.progress_of(0), djactor.progress_of(NULL);
SELECT djactor.cancel(id_of('a'), true);
CALL wait_until('djactor.progress_of(id_of(''a'')) IS NULL');
SELECT name, value FROM djactor.progress JOIN sent ON id = message_id;
SELECT djactor.cancel(id_of('b'), true);
CALL idle('progress');
-- the last one counts; one that is handled, or fails, leaves nothing
SELECT put('more', 'progress', 'a', '{"do": "SELECT concat(djactor.progress(''1''), djactor.progress(''2''), djactor.progress_of((djactor.message()).id))"}'),
	put('fails', 'progress', 'a', '{"do": "SELECT djactor.progress(''1''), 1/0"}');
CALL idle('progress');
SELECT handled('progress', 'a');
SELECT count(*) FROM djactor.progress;

-- # Limits: 1024 bytes as text; any JSON, but not SQL NULL; only in a turn
SELECT put('full', 'progress', 'c', '{"do": "SELECT concat(djactor.progress(to_jsonb(repeat(''x'', 1022))), length(djactor.progress_of((djactor.message()).id)::text))"}'),
	put('long', 'progress', 'c', '{"do": "SELECT djactor.progress(to_jsonb(repeat(''x'', 1023)))"}'), put('null', 'progress', 'c', '{"do": "SELECT djactor.progress(NULL)"}');
CALL idle('progress');
SELECT handled('progress', 'c');
SELECT payload->'do' AS did, sqlstate, error FROM djactor.dead_letter WHERE actor_key = 'c' ORDER BY id;
CALL fails($$SELECT djactor.progress('1')$$);
-- a turn of drain() says it too
BEGIN;
SELECT put('drained', 'progress', 'd', '{"do": "SELECT concat(djactor.progress(''1''), djactor.progress_of((djactor.message()).id))"}');
SELECT djactor.drain() > 0 AS drained;
SELECT handled('progress', 'd');
SELECT count(*) FROM djactor.progress;
ROLLBACK;

-- # Hosted turns: inside of a transaction as a turn inside; outside by their token (who LISTENs hears of that: test/django/test_progress.py)
SELECT djactor.host_open('{progress.hosted}') > 0 AS opened;
SELECT put('h1', 'progress.hosted', 'h'), put('h2', 'progress.hosted', 'h');
CREATE TABLE taken AS SELECT token, id FROM djactor.take(10, 10);
CREATE FUNCTION token(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT token FROM taken WHERE id = id_of(name) $$;
SELECT djactor.progress(token('h1'), id_of('h1'), '"outside"');
SELECT name, value FROM djactor.progress JOIN sent ON id = message_id;
BEGIN;
SELECT djactor.begin_turn(token('h1'), id_of('h1'));
SELECT djactor.progress('"inside"');
SELECT djactor.progress_of(id_of('h1'));
CALL djactor.end_turn('{}');
SELECT djactor.progress_of(id_of('h1')) IS NULL AS gone;
COMMIT;
SELECT djactor.progress(token('h1'), id_of('h1'), '1') AS late, djactor.progress(token('h2'), id_of('h2'), '2') AS current, djactor.progress(token('h2'), -1, '2') AS no_message, djactor.progress(1, id_of('h2'), '2') AS no_token;
SELECT djactor.complete(ARRAY[token('h2')], ARRAY[id_of('h2')], '{NULL}');
SELECT count(*) FROM djactor.progress;
-- and with a claim that is given back
SELECT put('h3', 'progress.hosted', 'h');
INSERT INTO taken SELECT token, id FROM djactor.take(10, 10);
SELECT djactor.progress(token('h3'), id_of('h3'), '3');
-- nobody says anything of another actor's message
SELECT put('other', 'progress', 'e', runs(3));
SELECT djactor.progress(token('h3'), id_of('other'), '3');
SELECT djactor.release(ARRAY[token('h3')]);
SELECT djactor.progress_of(id_of('h3')) IS NULL AS gone;
SELECT djactor.host_close();

-- # For who may read mail
CREATE ROLE progress_stranger;
GRANT SELECT ON sent TO progress_stranger;
SET ROLE progress_stranger;
CALL refused('SELECT djactor.progress_of(1)');
CALL refused('SELECT * FROM djactor.progress');
RESET ROLE;
GRANT SELECT ON djactor.message TO progress_stranger;
SET ROLE progress_stranger;
SELECT djactor.progress_of(1);
RESET ROLE;
ALTER TABLE djactor.message ENABLE ROW LEVEL SECURITY;
SET ROLE progress_stranger;
CALL refused('SELECT djactor.progress_of(1)');
RESET ROLE;
ALTER TABLE djactor.message DISABLE ROW LEVEL SECURITY;
REVOKE ALL ON djactor.message, sent FROM progress_stranger;
DROP ROLE progress_stranger;

SELECT djactor.cancel(id_of('other'), true) IS NOT NULL AS ended;
CALL idle('progress');
SELECT djactor.drop_actor_type('progress', true), djactor.drop_actor_type('progress.hosted', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'progress';
DROP FUNCTION runs, token;
DROP TABLE taken;
\i :tests/sql/include/ask_end.sql
