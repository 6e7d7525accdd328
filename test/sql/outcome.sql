--
-- outcome(): what became of a message.
-- Section 2 (operate).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION outcome_handler(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF message ? 'fail' THEN
		RAISE EXCEPTION 'told to fail';
	END IF;
END $$;
SELECT djactor.define_actor_type('outcome', 'outcome_handler', journal => '1 d', max_attempts => 1);
SELECT djactor.define_actor_type('outcome.retry', 'outcome_handler', backoff => '1 d', backoff_max => '1 d');
SELECT djactor.define_actor_type('outcome.skip', 'outcome_handler', backoff => '1 d', backoff_max => '1 d', retry_order => 'skip');
SELECT djactor.define_actor_type('outcome.stop', 'outcome_handler', max_attempts => 1, on_exhausted => 'suspend');
CREATE TEMPORARY TABLE sent (what text, id bigint);

-- # waiting: delayed; handled: while the journal shows it; dead: in dead_letter
INSERT INTO sent VALUES ('delayed', djactor.send('outcome', 'a', deliver_at => now() + interval '1 d')),
	('handled', djactor.send('outcome', 'b')), ('dead', djactor.send('outcome', 'c', '{"fail": true}'));
CALL idle('outcome');
SELECT what, djactor.outcome(id) FROM sent;

-- # retrying: has failed and waits for its next attempt, under either order; what stands behind it just waits
INSERT INTO sent VALUES ('retry', djactor.send('outcome.retry', 'a', '{"fail": true}')), ('behind', djactor.send('outcome.retry', 'a')),
	('skip', djactor.send('outcome.skip', 'a', '{"fail": true}'));
CALL wait_until($$(SELECT count(*) = 2 FROM djactor.message WHERE retry_at IS NOT NULL AND actor_type LIKE 'outcome.%')$$);
SELECT what, djactor.outcome(id) FROM sent WHERE what IN ('retry', 'behind', 'skip');

-- # held: the type is paused, the actor is paused, or it is suspended
SELECT djactor.pause('outcome.retry');
SELECT what, djactor.outcome(id) FROM sent WHERE what IN ('retry', 'behind', 'skip');
SELECT djactor.resume('outcome.retry');
SELECT djactor.pause('outcome', 'b');
INSERT INTO sent VALUES ('paused', djactor.send('outcome', 'b'));
INSERT INTO sent VALUES ('suspended', djactor.send('outcome.stop', 'a', '{"fail": true}'));
INSERT INTO sent VALUES ('other', djactor.send('outcome.stop', 'b', deliver_at => now() + interval '1 d'));
CALL wait_until($$EXISTS (SELECT FROM djactor.actor WHERE actor_type = 'outcome.stop' AND status = 'suspended')$$);
SELECT what, djactor.outcome(id) FROM sent WHERE what IN ('paused', 'suspended', 'other');

-- # held: it came by replication. waiting: put aside by its actor, or an ask whose reply is to come
ALTER TABLE djactor.message DISABLE TRIGGER arrived;	-- which would hold them all
SET session_replication_role = replica;
UPDATE djactor.message m SET aside = a FROM sent s, (VALUES ('delayed', 'held'), ('retry', 'stashed'), ('behind', 'deferred'), ('skip', 'duplicate')) v (w, a)
WHERE s.id = m.id AND s.what = v.w;
RESET session_replication_role;
ALTER TABLE djactor.message ENABLE REPLICA TRIGGER arrived;
SELECT what, m.aside, djactor.outcome(id) FROM sent JOIN djactor.message m USING (id) WHERE m.aside IS NOT NULL ORDER BY id;

-- # replied: while the reply is kept. Unknown: handled without a trace, never sent, none
INSERT INTO djactor.reply (message_id, payload, created_at, expires_at) SELECT id, 'null', now(), now() + interval '1 d' FROM sent WHERE what = 'handled';
SELECT djactor.outcome(id) FROM sent WHERE what = 'handled';
DELETE FROM djactor.reply WHERE message_id IN (SELECT id FROM sent);
SELECT djactor.outcome(id) FROM sent WHERE what = 'handled';
DELETE FROM djactor.journal WHERE actor_type = 'outcome';
SELECT djactor.outcome(id) IS NULL AS unknown FROM sent WHERE what = 'handled';
SELECT djactor.outcome(-1) IS NULL AS never_sent, djactor.outcome(NULL) IS NULL AS none;

-- # It reads with the caller's rights
CREATE ROLE regress_dja_outcome;
SET ROLE regress_dja_outcome;
CALL fails('SELECT djactor.outcome(1)');
RESET ROLE;
DROP ROLE regress_dja_outcome;

DROP TABLE sent;
SELECT djactor.drop_actor_type(name, true) FROM djactor.actor_type WHERE name LIKE 'outcome%';
DELETE FROM djactor.dead_letter WHERE actor_type = 'outcome';
DROP FUNCTION outcome_handler;
