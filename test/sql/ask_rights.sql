--
-- Who may cancel, redrive and discard, who may wait for a reply, and whose replies he sees.
-- Section 2 (allowed writes), section 3 point 24.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/ask.sql
CREATE ROLE regress_dja_owner LOGIN;
CREATE ROLE regress_dja_member LOGIN IN ROLE regress_dja_owner;
CREATE ROLE regress_dja_stranger LOGIN;
CREATE ROLE regress_dja_cleaner LOGIN;
GRANT ALL ON sent TO PUBLIC;
GRANT INSERT (actor_type, actor_key, payload, priority, deliver_at, expires_at, idempotency_key, wants_reply), SELECT (id) ON djactor.message TO regress_dja_stranger;
GRANT SELECT, DELETE ON djactor.dead_letter TO regress_dja_cleaner;
GRANT SELECT ON djactor.reply TO regress_dja_member;
SELECT djactor.define_actor_type('rights', 'act', max_attempts => 1, owner => 'regress_dja_owner'), djactor.define_actor_type('rights.mine', 'act', max_attempts => 1);
SELECT put('waits ' || n, 'rights', 'a', deliver_at => now() + interval '1 h') FROM generate_series(1, 3) n;
SELECT put('dead ' || n, 'rights', 'a', '{"do": "SELECT djactor.reject(''no'')"}') FROM generate_series(1, 5) n;
SELECT put('my dead', 'rights.mine', 'a', '{"do": "SELECT djactor.reject(''no'')"}'), put('deferred', 'rights', 'a', '{"do": "SELECT djactor.defer_reply() * 0"}');
CALL idle('rights'); CALL idle('rights.mine');
-- tries: shows the result, or the SQLSTATE
CREATE PROCEDURE tries(what text, name text) LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('SELECT djactor.%s(%s)', what, id_of(name)) INTO result;
	RAISE INFO '%', CASE WHEN result = id_of(name)::text THEN 'its id' ELSE result END;
EXCEPTION WHEN OTHERS THEN
	RAISE INFO '%', SQLSTATE;
END $$;

-- # A stranger may send, and nothing else: not even take back what he has sent
SET ROLE regress_dja_stranger;
SELECT put('sent by him', 'rights', 'a', deliver_at => now() + interval '1 h');
CALL tries('cancel', 'sent by him');
CALL tries('cancel', 'waits 1');
CALL tries('cancel', 'deferred');
CALL tries('redrive', 'dead 1');
CALL tries('discard', 'dead 1');
CALL tries('wait_reply', 'dead 1');
CALL refused($$CALL djactor.wait_reply(1, '1 s', NULL)$$);
-- what is not there is said to be so to everybody
SELECT djactor.cancel(-1);
-- # He may ask, and gets the reply to what he has asked
CALL djactor.ask('rights', 'b', '{"reply": "for whoever asks"}', '1 min');
RESET ROLE;

-- # The type's owner and its members may
SET ROLE regress_dja_owner;
CALL tries('cancel', 'waits 1');
CALL tries('redrive', 'dead 1');
CALL tries('discard', 'dead 2');
CALL tries('wait_reply', 'dead 1');
-- but not for another owner's
CALL tries('redrive', 'my dead');
CALL tries('discard', 'my dead');
RESET ROLE;
SET ROLE regress_dja_member;
CALL tries('cancel', 'waits 2');
CALL tries('cancel', 'deferred');
CALL tries('redrive', 'dead 3');
CALL tries('wait_reply', 'dead 3');
RESET ROLE;
SELECT put('shown', 'rights', 'a', '{"reply": "for him"}'), put('hidden', 'rights', 'a', '{"reply": "for others"}');
CALL idle('rights');
-- # Row security says who sees which reply, and which dead letters a right to delete is for: not all, then
ALTER TABLE djactor.reply ENABLE ROW LEVEL SECURITY;
ALTER TABLE djactor.dead_letter ENABLE ROW LEVEL SECURITY;
SET ROLE regress_dja_member;
CALL refused(format('SELECT djactor.wait_reply(%s, ''0 s'')', id_of('dead 3')));
SET row_security = off;
CALL refused(format('SELECT djactor.wait_reply(%s, ''0 s'')', id_of('dead 3')));
\set VERBOSITY sqlstate
CALL djactor.wait_reply(id_of('shown'), '0 s', NULL);
RESET row_security;
CALL djactor.wait_reply(id_of('shown'), '0 s', NULL);
\set VERBOSITY default
RESET ROLE;
CREATE POLICY of_some ON djactor.reply TO regress_dja_member USING (message_id IN (SELECT id FROM sent WHERE name IN ('dead 3', 'shown')));
SET ROLE regress_dja_member;
CALL refused(format('SELECT djactor.wait_reply(%s, ''0 s'')', id_of('dead 3')));
CALL refused(format('SELECT djactor.wait_reply(%s, ''0 s'')', id_of('dead 2')));
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL refused(format('SELECT djactor.wait_reply(%s, ''0 s'')', id_of('dead 3')));
CALL refused(format('SELECT djactor.wait_reply(%s, ''0 s'')', id_of('dead 2')));
COMMIT;
-- the procedure obeys as well, at its first look and while it waits
\set VERBOSITY sqlstate
CALL djactor.wait_reply(id_of('shown'), '1 min', NULL);
CALL djactor.wait_reply(id_of('shown'), '0 s', NULL);
CALL djactor.wait_reply(id_of('dead 3'), '1 min', NULL);
CALL djactor.wait_reply(id_of('hidden'), '0 s', NULL);
CALL djactor.wait_reply(id_of('hidden'), '1200 ms', NULL);
CALL djactor.wait_reply(id_of('dead 2'), '0 s', NULL);
\set VERBOSITY default
RESET ROLE;
SET ROLE regress_dja_cleaner;
CALL tries('discard', 'dead 4');
CALL tries('redrive', 'dead 5');
RESET ROLE;
-- who asks gets his answer all the same
SET ROLE regress_dja_stranger;
CALL djactor.ask('rights', 'b', '{"reply": "for whoever asks"}', '1 min');
RESET ROLE;
DROP POLICY of_some ON djactor.reply;
ALTER TABLE djactor.reply DISABLE ROW LEVEL SECURITY;
ALTER TABLE djactor.dead_letter DISABLE ROW LEVEL SECURITY;
-- # Who may delete dead letters may bring them back, too, but not change what they say
SET ROLE regress_dja_cleaner;
CALL tries('discard', 'dead 4');
CALL refused(format('SELECT djactor.redrive(%s, ''{}'')', id_of('dead 5')));
CALL tries('redrive', 'dead 5');
CALL tries('cancel', 'waits 3');
RESET ROLE;
CALL idle('rights');

-- # Turns have the rights of their owner
SELECT put('doctor', 'rights', 'doctor', jsonb_build_object('do', format('SELECT djactor.redrive(%s)', id_of('my dead'))));
SELECT put('canceller', 'rights.mine', 'c', jsonb_build_object('do', format('SELECT djactor.cancel(%s)', id_of('waits 3'))));
SELECT put('mine', 'rights.mine', 'm', deliver_at => now() + interval '1 h');
SELECT put('canceller of another''s', 'rights', 'c', jsonb_build_object('do', format('SELECT djactor.cancel(%s)', id_of('mine'))));
CALL idle('rights'); CALL idle('rights.mine');
SELECT name, payload, error ->> 'sqlstate' AS sqlstate FROM answer WHERE name LIKE 'canceller%' OR name = 'doctor' ORDER BY id_of(name);
SELECT name FROM waiting ORDER BY 1;

-- # A dead letter whose type is gone: only who may delete dead letters
SELECT djactor.drop_actor_type('rights', true);
SET ROLE regress_dja_owner;
CALL tries('discard', 'dead 1');
CALL tries('redrive', 'dead 1');
RESET ROLE;
SET ROLE regress_dja_cleaner;
CALL tries('redrive', 'dead 1');
CALL tries('discard', 'dead 1');
RESET ROLE;

-- # In a read-only transaction
BEGIN READ ONLY;
CALL tries('cancel', 'mine');
CALL tries('redrive', 'my dead');
CALL tries('discard', 'my dead');
ROLLBACK;

SELECT djactor.drop_actor_type('rights.mine', true);
DELETE FROM djactor.dead_letter WHERE actor_type LIKE 'rights%';
DROP PROCEDURE tries;
REVOKE ALL ON sent FROM PUBLIC;
REVOKE ALL ON djactor.dead_letter, djactor.reply FROM regress_dja_cleaner, regress_dja_member;
REVOKE ALL ON djactor.message FROM regress_dja_stranger;
DROP ROLE regress_dja_owner, regress_dja_member, regress_dja_stranger, regress_dja_cleaner;
\i :tests/sql/include/ask_end.sql
