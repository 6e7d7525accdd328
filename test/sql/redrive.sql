--
-- Dead letters: brought back with redrive(), or discarded.
-- Section 2 (redrive, discard, one id for life), section 3 points 6, 13, 18 and 19.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
CREATE TABLE switch (broken int);
INSERT INTO switch VALUES (0);
CREATE FUNCTION depends(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'needs switch' THEN
		PERFORM 1 / broken FROM switch;
	END IF;
	RETURN (act(state, message - 'needs switch' || jsonb_build_object('attempts', (djactor.message()).attempts, 'redrives', (djactor.message()).redrives)));
END $$;
SELECT djactor.define_actor_type('redrive', 'depends', max_attempts => 2, backoff => '1 ms', breaker_failures => NULL);
SELECT put(n, 'redrive', 'a', jsonb_build_object('needs switch', true, 'n', n, 'reply', n), wants_reply => n = 'ask', priority => 3,
	deliver_at => CASE WHEN n = 'delayed' THEN now() END, expires_at => CASE WHEN n = 'expiring' THEN now() END) FROM unnest(ARRAY['one', 'ask', 'delayed', 'expiring']) n;
CALL wait_until('(SELECT count(*) = 4 FROM djactor.dead_letter WHERE actor_type = ''redrive'')');
CREATE VIEW dead AS SELECT name, reason, attempts, redrives FROM sent JOIN djactor.dead_letter USING (id);
SELECT * FROM dead ORDER BY id_of(name);
SELECT name, error ->> 'reason' AS reason FROM answer;

-- # Back under its id, with what it had, as if it had never failed; it fails anew as often as any other
SELECT djactor.redrive(id_of('one')) = id_of('one') AS same_id;
CALL idle('redrive');
SELECT * FROM dead WHERE name = 'one';
UPDATE switch SET broken = 1;
BEGIN;
SELECT djactor.redrive(id_of('one')) = id_of('one') AS same_id;
SELECT attempts, redrives, priority, last_error, retry_at, payload FROM djactor.message WHERE id = id_of('one');
SELECT * FROM dead WHERE name = 'one';
COMMIT;
CALL idle('redrive');
SELECT handled('redrive', 'a');

-- # Many, by a query; neither an old delay nor an old expiry counts any more
SELECT count(djactor.redrive(id)) AS redriven FROM djactor.dead_letter WHERE actor_type = 'redrive' AND reason IN ('failed', 'expired');
CALL idle('redrive');
SELECT h ->> 'n' AS n, h -> 'attempts' AS attempts, h -> 'redrives' AS redrives FROM handled('redrive', 'a') h;
SELECT * FROM dead;
-- # Who asked was answered when it died, and is not answered twice
SELECT name, payload, error ->> 'reason' AS reason FROM answer;

-- # Rolled back, nothing has happened
SELECT put('rejected', 'redrive', 'a', '{"n": "rejected", "do": "SELECT djactor.reject(''no'')"}', wants_reply => false);
CALL idle('redrive');
BEGIN;
SELECT djactor.redrive(id_of('rejected')) > 0 AS redriven;
CALL fails(format('SELECT djactor.redrive(%s) + 0 * length(''gone'')', -1));
ROLLBACK;
SELECT * FROM dead;
SELECT * FROM waiting;
-- # With drain(), too; not seen by workers before the commit
BEGIN;
SELECT djactor.redrive(id_of('rejected')) > 0 AS redriven;
SELECT djactor.drain(on_error => 'retry');
SELECT * FROM dead;
ROLLBACK;

-- # Unknown, or redriven already
CALL fails('SELECT djactor.redrive(-1)');
SELECT put('handled', 'redrive', 'a', wants_reply => false);
CALL idle('redrive');
DO $$ BEGIN PERFORM djactor.redrive(id_of('handled')); EXCEPTION WHEN undefined_object THEN RAISE INFO '%', replace(SQLERRM, id_of('handled')::text, 'N'); END $$;
SELECT djactor.redrive(NULL) IS NULL AS null;

-- # discard(): gone for good
SELECT djactor.discard(id_of('rejected'));
SELECT * FROM dead;
CALL fails('SELECT djactor.discard(-1)');

-- # Its type is gone: it stays, until there is such a type again, or somebody discards it
SELECT djactor.define_actor_type('redrive.gone', 'act', max_attempts => 1);
SELECT put('left', 'redrive.gone', 'a', '{"do": "SELECT 1 / 0"}', wants_reply => false), put('left, too', 'redrive.gone', 'a', '{"do": "SELECT 1 / 0"}', wants_reply => false);
CALL idle('redrive.gone');
SELECT djactor.drop_actor_type('redrive.gone', true);
DO $$
DECLARE
	detail text; hint text;
BEGIN
	PERFORM djactor.redrive(id_of('left'));
EXCEPTION WHEN undefined_object THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RAISE INFO '%', replace(SQLERRM, id_of('left')::text, 'N') USING DETAIL = detail, HINT = hint;
END $$;
SELECT djactor.discard(id_of('left, too'));
SELECT name, reason FROM dead;
CREATE FUNCTION lenient(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT collect(state, message) $$;
SELECT djactor.define_actor_type('redrive.gone', 'lenient');
SELECT djactor.redrive(id_of('left')) > 0 AS redriven;
CALL idle('redrive.gone');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'redrive.gone';

-- # In a turn, an actor that looks after dead letters may do it
SELECT put('dies', 'redrive', 'a', '{"n": "dies", "do": "SELECT djactor.reject(''no'')"}', wants_reply => false);
CALL idle('redrive');
SELECT djactor.define_actor_type('redrive.gone', 'act');
SELECT put('doctor', 'redrive.gone', 'doctor', jsonb_build_object('do', format('SELECT djactor.redrive(%s) * 0', id_of('dies'))), wants_reply => false);
CALL idle('redrive.gone'); CALL idle('redrive');
SELECT * FROM dead;

-- # What is stored out of line comes back whole, again and again, and the columns that only messages have are as those of a new one
CREATE FUNCTION large(word text) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object(word, string_agg(md5(word || i), '')) FROM generate_series(1, 3000) i $$;
CREATE FUNCTION weigh(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM 1 / broken FROM switch;
	RETURN jsonb_build_object('whole', message = large('payload') AND (djactor.message()).headers = large('headers'));
END $$;
UPDATE switch SET broken = 0;
SELECT djactor.define_actor_type('redrive.large', 'weigh', max_attempts => 1, breaker_failures => NULL);
SELECT djactor.send('redrive.large', 'a', large('payload'), headers => large('headers'), coalesce_key => 'k', coalesce_mode => 'keep') AS large \gset
CALL idle('redrive.large');
SELECT pg_column_size(payload) > 50000 AND pg_column_size(headers) > 50000 AS large, payload = large('payload') AND headers = large('headers') AS whole
	FROM djactor.dead_letter WHERE id = :large;
BEGIN;
SELECT djactor.redrive(:large) = :large AS same_id;
SELECT payload = large('payload') AND headers = large('headers') AS whole, released, aside, put_offs, coalesce_key, coalesce_mode, coalesce_until
	FROM djactor.message WHERE id = :large;
COMMIT;
CALL idle('redrive.large');
SELECT reason, redrives FROM djactor.dead_letter WHERE id = :large;
UPDATE switch SET broken = 1;
SELECT djactor.redrive(:large) = :large AS same_id;
VACUUM djactor.dead_letter;
CALL idle('redrive.large');
SELECT state FROM djactor.actor WHERE actor_type = 'redrive.large';

-- # With another payload, and nothing else changed
SELECT put('misspelt', 'redrive', 'a', '{"n": "misspelt", "do": "SELECT djactor.reject(''no'')"}', wants_reply => false, priority => 3, idempotency_key => 'key');
CALL idle('redrive');
SELECT djactor.redrive(id_of('misspelt'), NULL) IS NULL AS null;
BEGIN;
SELECT djactor.redrive(id_of('misspelt'), '{"n": "corrected"}') = id_of('misspelt') AS same_id;
SELECT payload, priority, idempotency_key, redrives, kind FROM djactor.message WHERE id = id_of('misspelt');
SELECT count(*) FROM djactor.dead_letter WHERE id = id_of('misspelt');
COMMIT;
CALL idle('redrive');
SELECT h ->> 'n' AS n FROM handled('redrive', 'a') h WHERE h ->> 'n' = 'corrected';
CALL fails('SELECT djactor.redrive(-1, ''{}'')');
-- stored out of line, and JSON null, which is a value
UPDATE switch SET broken = 0;
SELECT djactor.send('redrive.large', 'b', headers => large('headers')) AS one, djactor.send('redrive.large', 'c') AS other \gset
CALL idle('redrive.large');
UPDATE switch SET broken = 1;
SELECT djactor.redrive(:one, large('payload')) = :one AS same_id;
CALL idle('redrive.large');
SELECT state FROM djactor.actor WHERE actor_type = 'redrive.large' AND actor_key = 'b';
BEGIN;
SELECT djactor.redrive(:other, 'null') = :other AS same_id;
SELECT payload FROM djactor.message WHERE id = :other;
ROLLBACK;

SELECT djactor.drop_actor_type('redrive.large', true);
SELECT djactor.drop_actor_type('redrive', true), djactor.drop_actor_type('redrive.gone', true);
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'redrive%';
DROP VIEW dead;
DROP TABLE switch;
DROP FUNCTION depends, lenient, weigh, large;
\i :tests/sql/include/ask_end.sql
