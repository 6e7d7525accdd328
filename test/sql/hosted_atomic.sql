--
-- A hosted turn commits with the transaction that ends it, wholly, or leaves nothing; a savepoint undoes it wholly, too, and it can be begun again.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
CREATE TABLE written (what text);
SELECT djactor.define_actor_type('hosted', NULL, hosted => true), djactor.define_actor_type('other', NULL, hosted => true);
SELECT djactor.host_open('{hosted}') > 0 AS opened;
-- everything that a turn can leave
CREATE FUNCTION effects() RETURNS TABLE (state jsonb, waiting text, sent bigint, timers bigint, written text, replies bigint, keys bigint)
LANGUAGE sql AS $$
	SELECT (SELECT a.state FROM djactor.actor a WHERE actor_type = 'hosted' AND actor_key = 'a'),
		(SELECT string_agg(payload #>> '{}', ' ' ORDER BY id) FROM djactor.message WHERE actor_type = 'hosted' AND kind = 'user' AND aside IS NULL),
		(SELECT count(*) FROM djactor.message WHERE actor_type = 'other'),
		(SELECT count(*) FROM djactor.timer WHERE actor_type = 'hosted'),
		(SELECT string_agg(what, ' ' ORDER BY what) FROM written),
		(SELECT count(*) FROM djactor.reply),
		(SELECT count(*) FROM djactor.message WHERE aside = 'stashed')
$$;
CREATE PROCEDURE whole_turn(word text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM begin_turn(word);
	INSERT INTO written VALUES (word);
	PERFORM djactor.send('other', 'o', to_jsonb(word)), djactor.set_timer(word, '1 day'), djactor.reply(to_jsonb(word));
	CALL djactor.end_turn(to_jsonb(word));
END $$;
DELETE FROM djactor.reply;

-- # Nothing of a transaction that is rolled back, with its turn ended or not
SELECT djactor.send('hosted', 'a', '"one"', wants_reply => true) > 0, djactor.send('hosted', 'a', '"two"', wants_reply => true) > 0,
	djactor.send('hosted', 'a', '"three"', wants_reply => true) > 0;
SELECT * FROM claims();
BEGIN;
CALL whole_turn('one');
SELECT * FROM effects();
ROLLBACK;
SELECT * FROM effects();
BEGIN;
SELECT begin_turn('one');
INSERT INTO written VALUES ('one');
SELECT djactor.reply('1'), djactor.set_timer('t', '1 day'), djactor.stop();
ROLLBACK;
SELECT * FROM effects();

-- # A savepoint undoes the turns in it, and they can be begun again
BEGIN;
CALL whole_turn('one');
SAVEPOINT s;
CALL whole_turn('two');
CALL whole_turn('three');
SELECT * FROM effects();
ROLLBACK TO s;
SELECT * FROM effects();
CALL whole_turn('two');
COMMIT;
SELECT * FROM effects();

-- # ... also one that is under way, and ends with it
SELECT complete('three');
SELECT djactor.send('hosted', 'a', '"four"', wants_reply => true) > 0 AS sent;
SELECT * FROM claims();
BEGIN;
SAVEPOINT s;
SELECT begin_turn('four');
SELECT djactor.stop(), djactor.stash();
ROLLBACK TO s;
SELECT djactor.self();
SELECT begin_turn('four');
SAVEPOINT inner_;
SELECT djactor.reply('"undone"'), djactor.set_timer('undone', '1 day');
ROLLBACK TO inner_;
SELECT djactor.self();
SELECT djactor.reply('"kept"');
RELEASE inner_;
CALL djactor.end_turn('"four"');
COMMIT;
SELECT payload FROM djactor.reply ORDER BY message_id DESC LIMIT 1;
SELECT name FROM djactor.timer ORDER BY 1;

-- # What a turn has asked for within a savepoint that is undone is not done
SELECT put('hosted', 'a', 'five', 'six', 'seven');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('five');
SAVEPOINT s;
SELECT djactor.stop(discard => true);
ROLLBACK TO s;
SAVEPOINT s;
SELECT djactor.stash();
ROLLBACK TO s;
SAVEPOINT s;
SELECT djactor.cancel_timer('one');
ROLLBACK TO s;
RELEASE s;
RELEASE s;
RELEASE s;
CALL djactor.end_turn('"five"');
COMMIT;
SELECT * FROM effects();
SELECT name FROM djactor.timer ORDER BY 1;

-- # complete() within a savepoint
BEGIN;
SAVEPOINT s;
SELECT complete('six', 'seven');
ROLLBACK TO s;
SELECT complete('six');
SAVEPOINT s;
SELECT complete('seven');
RELEASE s;
COMMIT;
SELECT * FROM effects();

-- # An error of complete() undoes all its turns, and only those; they can be completed one by one
SELECT put('hosted', 'b', 'p', 'q'), put('hosted', 'c', 'r');
SELECT * FROM claims();
BEGIN;
CALL refused($$SELECT djactor.complete(ARRAY[token('p'), token('q'), token('r')], ARRAY[id('p'), id('r'), id('r')], '{1,2,3}')$$);
SELECT complete('p');
CALL refused($$SELECT djactor.complete(ARRAY[token('q')], ARRAY[id('r')], '{2}')$$);
SELECT complete('r');
COMMIT;
SELECT * FROM actors('hosted') WHERE actor_key > 'a';
SELECT fail('q');
SELECT claims FROM djactor.host;
SELECT count(djactor.cancel(id)) AS cancelled FROM djactor.message WHERE actor_type = 'hosted' AND kind = 'user';

-- # fail() within a savepoint that is undone has failed nothing: the message comes again at once
SELECT put('hosted', 'd', 'p', 'q');
SELECT * FROM claims();
BEGIN;
SAVEPOINT s;
SELECT fail('p');
ROLLBACK TO s;
COMMIT;
SELECT attempts, retry_at FROM djactor.message WHERE actor_key = 'd';
BEGIN;
SELECT fail('p', 'JA003');
ROLLBACK;
SELECT complete('p', 'q');

-- # Deferred constraints fire in end_turn: their failure is that of the turn
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
SELECT put('hosted', 'e', 'p', 'q');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('p');
INSERT INTO child VALUES (1);
INSERT INTO parent VALUES (1);
CALL djactor.end_turn('"p"');
SAVEPOINT s;
SELECT begin_turn('q');
INSERT INTO child VALUES (2);
\set VERBOSITY terse
CALL djactor.end_turn('"q"');
\set VERBOSITY default
ROLLBACK TO s;
COMMIT;
SELECT * FROM actors('hosted') WHERE actor_key = 'e';
SELECT fail('q', '23503');
SELECT attempts, last_error FROM djactor.message WHERE actor_key = 'e';
SELECT count(*) AS children FROM child;
-- those of the transaction before the turn fire with it
SELECT put('hosted', 'f', 'p');
SELECT * FROM claims();
BEGIN;
INSERT INTO child VALUES (3);
SELECT begin_turn('p');
INSERT INTO parent VALUES (3);
CALL djactor.end_turn();
COMMIT;
SELECT * FROM actors('hosted') WHERE actor_key = 'f';

-- # Many turns of many claims in one transaction
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'hosted', 'many ' || i % 70, to_jsonb('m' || i) FROM generate_series(1, 210) i;
SELECT count(*) AS mailboxes FROM claims();
BEGIN;
DO $$
BEGIN
	FOR i IN 1 .. 210 LOOP
		PERFORM begin_turn('m' || i);
		CALL djactor.end_turn(to_jsonb(i));
	END LOOP;
END $$;
ROLLBACK;
SELECT claims FROM djactor.host;
BEGIN;
DO $$
BEGIN
	FOR i IN 1 .. 210 LOOP
		BEGIN
			PERFORM begin_turn('m' || i);
			CALL djactor.end_turn(to_jsonb(i));
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'undone';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			PERFORM complete('m' || i);
		END;
	END LOOP;
END $$;
COMMIT;
SELECT claims FROM djactor.host;
SELECT count(*) AS actors, sum(turns) AS turns, count(*) FILTER (WHERE jsonb_typeof(state) = 'string') AS by_complete FROM actors('hosted') WHERE actor_key LIKE 'many%';

SELECT djactor.host_close();
SELECT djactor.drop_actor_type('hosted', true), djactor.drop_actor_type('other', true);
DELETE FROM djactor.reply;
DROP TABLE written, child, parent;
DROP PROCEDURE whole_turn;
DROP FUNCTION effects;
\i :tests/sql/include/hosted_end.sql
