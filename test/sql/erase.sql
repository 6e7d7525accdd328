--
-- All that is kept about a key, deleted in one call: erase().
-- Section 3 points 2, 18 and 23.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
SELECT djactor.define_actor_type('erase', 'act', journal => '1 d', max_attempts => 1, breaker_failures => NULL), djactor.define_actor_type('erase.other', 'act');
-- kept: where rows name an actor, whatever column they do it in
CREATE FUNCTION kept(type text, key text) RETURNS TABLE (relation text, n bigint) LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT c.relname, t.attname AS type_column, k.attname AS key_column
		FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid JOIN pg_attribute k ON k.attrelid = c.oid
			AND k.attname = replace(t.attname, 'type', 'key')
		WHERE c.relnamespace = 'djactor'::regnamespace AND c.relkind = 'r' AND t.attname LIKE '%\_type' AND t.attname <> 'sender_type' ORDER BY 1, 2
	LOOP
		EXECUTE format('SELECT %L, count(*) FROM djactor.%I WHERE %I = $1 AND %I = $2', r.relname || '.' || r.key_column, r.relname, r.type_column, r.key_column)
			INTO relation, n USING type, key;
		RETURN NEXT;
	END LOOP;
END $$;

-- # Two keys with one row or more of each kind: the erased one has nothing left, the other one keeps all
CREATE PROCEDURE fill(key text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM put(key || ' handled', 'erase', key, '{"reply": "secret"}', idempotency_key => 'once');
	PERFORM put(key || ' deferred', 'erase', key, '{"do": "SELECT djactor.defer_reply() * 0"}', idempotency_key => 'later');
	PERFORM put(key || ' duplicate', 'erase', key, idempotency_key => 'later');
	PERFORM put(key || ' stashed', 'erase', key, '{"do": "SELECT djactor.stash()"}');
	PERFORM put(key || ' dead', 'erase', key, '{"do": "SELECT djactor.reject(''no'')"}');
	PERFORM put(key || ' sets', 'erase', key, '{"do": "SELECT djactor.set_timer(''t'', ''1 h'', every => ''1 h'')"}', wants_reply => false);
	PERFORM put(key || ' watches', 'erase', key, '{"do": "SELECT djactor.watch(''erase.other'', ''watched'')"}', wants_reply => false);
	PERFORM put(key || ' delayed', 'erase', key, deliver_at => now() + interval '1 h');
END $$;
SELECT djactor.send('erase.other', 'watched') > 0 AS sent;
CALL idle('erase.other');
CALL fill('a');
CALL fill('b');
CALL idle('erase');
-- an actor that is not there yet cannot be watched
SELECT put(key || ' is watched', 'erase.other', 'watcher', jsonb_build_object('do', format('SELECT djactor.watch(''erase'', %L)', key)), wants_reply => false)
FROM unnest('{a,b}'::text[]) key;
CALL idle('erase.other');
SELECT djactor.pause('erase'), put('a waits', 'erase', 'a'), put('b waits', 'erase', 'b');
SELECT djactor.pause('erase.other');
SELECT * FROM kept('erase', 'b') ORDER BY 1;
BEGIN;
SELECT * FROM djactor.erase('erase', 'a');
SELECT * FROM kept('erase', 'a') WHERE n > 0;
ROLLBACK;
SELECT count(*) > 8 AS rolled_back FROM kept('erase', 'a') WHERE n > 0;
SELECT * FROM djactor.erase('erase', 'a');
SELECT * FROM kept('erase', 'a') WHERE n > 0;
SELECT * FROM kept('erase', 'b') ORDER BY 1;
-- who still waited for an answer has it, and nobody has the ones that were there
SELECT name, payload, error, actor_key FROM sent JOIN djactor.reply ON message_id = id WHERE name LIKE 'a %' ORDER BY id_of(name);
-- watchers were told
SELECT meta, sender_key FROM djactor.message WHERE kind = 'down';
-- again: nothing
SELECT sum(deleted) FROM djactor.erase('erase', 'a');
SELECT djactor.resume('erase'), djactor.resume('erase.other');

-- # Its keys are free, its timer is gone, and the next message finds a fresh actor
SELECT put('anew', 'erase', 'a', '{"n": 1}', idempotency_key => 'once');
CALL idle('erase');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'erase' AND actor_key = 'a';

-- # An actor that never had a turn; a key that nobody knows; mail of the own transaction; an actor that has asked itself
SELECT djactor.pause('erase');
SELECT put('first', 'erase', 'new');
SELECT * FROM djactor.erase('erase', 'new') WHERE deleted > 0;
SELECT count(*) AS tables, sum(deleted) AS deleted FROM djactor.erase('erase', 'nobody');
BEGIN;
SELECT put('own', 'erase', 'tx');
SELECT * FROM djactor.erase('erase', 'tx') WHERE deleted > 0;
ROLLBACK;
SELECT djactor.resume('erase');
BEGIN;
SELECT put('asks itself', 'erase', 'self', '{"do": "SELECT djactor.send(''erase'', ''self'', ''{}'', deliver_at => now() + ''1 h'', wants_reply => true)"}', wants_reply => false);
SELECT djactor.drain() > 0 AS drained;
SELECT * FROM djactor.erase('erase', 'self') WHERE deleted > 0 AND table_name <> 'journal';
SELECT * FROM kept('erase', 'self') WHERE n > 0;
ROLLBACK;

-- # Refused: unknown types, others' types, inside a turn, read-only transactions; NULL does nothing
CALL fails($$SELECT djactor.erase('no such type', 'x')$$);
SELECT count(*) FROM djactor.erase('erase', NULL);
BEGIN READ ONLY;
SELECT djactor.erase('erase', 'a');
ROLLBACK;
SELECT put('inside', 'erase', 'inside', '{"do": "SELECT djactor.erase(''erase'', ''a'')"}', wants_reply => false);
CALL idle('erase');
SELECT sqlstate, error FROM djactor.dead_letter WHERE id = id_of('inside');
CREATE ROLE erase_stranger;
GRANT USAGE ON SCHEMA djactor TO erase_stranger;
GRANT SELECT ON ALL TABLES IN SCHEMA djactor TO erase_stranger;
SET ROLE erase_stranger;
CALL refused($$SELECT djactor.erase('erase', 'b')$$);
RESET ROLE;
REVOKE ALL ON ALL TABLES IN SCHEMA djactor FROM erase_stranger;
REVOKE USAGE ON SCHEMA djactor FROM erase_stranger;
DROP ROLE erase_stranger;

SELECT sum(deleted) > 0 AS erased FROM djactor.erase('erase', 'b');
SELECT sum(deleted) > 0 AS erased FROM djactor.erase('erase', 'inside');
SELECT djactor.drop_actor_type('erase', true), djactor.drop_actor_type('erase.other', true);
DELETE FROM djactor.journal WHERE actor_type = 'erase';
DROP FUNCTION kept;
DROP PROCEDURE fill;
\i :tests/sql/include/ask_end.sql
