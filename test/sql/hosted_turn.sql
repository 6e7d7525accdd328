--
-- begin_turn() ... end_turn(): in between the transaction is inside the turn, and can do all that a handler can.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SELECT djactor.define_actor_type('hosted', NULL, hosted => true), djactor.define_actor_type('inside', 'collect');
SELECT djactor.host_open('{hosted}') > 0 AS opened;

-- # self(), message() are those of the turn, and of none outside
SELECT put('hosted', 'a', 'one', 'two');
SELECT * FROM claims();
BEGIN;
SELECT djactor.self();
SELECT begin_turn('one');
SELECT djactor.self(), (djactor.message()).payload, (djactor.message()).id = id('one') AS its_id;
-- state and reply are those of end_turn
CALL djactor.end_turn('{"turn": 1}');
SELECT djactor.self();
-- the next turn of the claim, in the same transaction
SELECT begin_turn('two');
SELECT djactor.self(), (djactor.message()).payload;
CALL djactor.end_turn();
COMMIT;
SELECT * FROM actors('hosted');
SELECT claims FROM djactor.host;

-- # Messages are sent by the actor, with the trace and the cause of what it handles
SELECT djactor.pause('inside');
SELECT put('hosted', 'a', 'sends');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('sends');
SELECT djactor.send('inside', 'i', '"by send"') > 0 AS sent;
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('inside', 'i', '"by insert"');
SELECT djactor.send('hosted', 'a', '"to itself"', wants_reply => true) > 0 AS sent;
CALL djactor.end_turn('{"turn": 3}');
COMMIT;
SELECT m.actor_type, m.payload, m.sender_type, m.sender_key, m.cause_id = id('sends') AS caused FROM djactor.message m ORDER BY m.id;
SELECT count(DISTINCT trace_id) AS traces FROM djactor.message;
SELECT djactor.resume('inside');
CALL idle('inside');
SELECT state FROM djactor.actor WHERE actor_type = 'inside';

-- # An answer to an actor is mail of kind reply
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('to itself');
CALL djactor.end_turn(NULL, '"yes"');
COMMIT;
SELECT kind, payload, in_reply_to = id('to itself') AS answers FROM djactor.take(1);
SELECT djactor.host_close();
SELECT djactor.host_open('{hosted}') > 0 AS opened;
SELECT * FROM claims();
SELECT complete('yes');

-- # reply(), reply_error(), defer_reply(), and what end_turn gives
CREATE TEMP TABLE asked AS SELECT w AS word, djactor.send('hosted', 'r', to_jsonb(w), wants_reply => true) AS id
	FROM unnest('{replies,errs,defers,result,nothing,both}'::text[]) w;
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('replies');
SELECT djactor.reply('"by reply()"');
CALL djactor.end_turn();
SELECT begin_turn('errs');
SELECT djactor.reply_error('"not today"');
CALL djactor.end_turn();
SELECT begin_turn('defers');
SELECT djactor.defer_reply() > 0 AS deferred;
CALL djactor.end_turn(NULL, '"not this"');
SELECT begin_turn('result');
CALL djactor.end_turn(NULL, '"by end_turn"');
SELECT begin_turn('nothing');
CALL djactor.end_turn('{}');
SELECT begin_turn('both');
SELECT djactor.reply('"the first counts"');
CALL djactor.end_turn(NULL, '"not the second"');
COMMIT;
SELECT word, payload, error FROM asked LEFT JOIN djactor.reply ON message_id = id ORDER BY id;
SELECT put('hosted', 'r', 'answers');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('answers');
SELECT djactor.reply('"later"', id) FROM asked WHERE word = 'defers';
CALL djactor.end_turn();
COMMIT;
SELECT word, payload, error FROM asked JOIN djactor.reply ON message_id = id WHERE word = 'defers';

-- # Timers: set, replaced, cancelled, fired
SELECT put('hosted', 't', 'sets', 'resets');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('sets');
SELECT djactor.set_timer('soon', '1 ms', '"soon"'), djactor.set_timer('later', '1 h', '"first"'), djactor.set_timer('never', '1 h');
CALL djactor.end_turn('{"set": true}');
SELECT begin_turn('resets');
SELECT djactor.set_timer('later', '2 h', '"second"'), djactor.cancel_timer('never');
CALL djactor.end_turn();
COMMIT;
SELECT name, payload FROM djactor.timer WHERE actor_type = 'hosted' ORDER BY 1;
CALL take_until('soon');
BEGIN;
SELECT begin_turn('soon');
SELECT (djactor.message()).kind, (djactor.message()).meta ->> 'name' AS name;
CALL djactor.end_turn();
COMMIT;
SELECT name, payload FROM djactor.timer WHERE actor_type = 'hosted' ORDER BY 1;

-- # stash(), unstash_all(): the message comes again, before what came later
SELECT put('hosted', 's', 'not yet', 'opens', 'after');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('not yet');
SELECT djactor.stash();
CALL djactor.end_turn('{"closed": true}');
COMMIT;
SELECT payload, aside FROM djactor.message WHERE actor_type = 'hosted' AND actor_key = 's' ORDER BY id;
BEGIN;
SELECT begin_turn('opens');
SELECT djactor.unstash_all() AS unstashed;
CALL djactor.end_turn('{"closed": false}');
COMMIT;
-- what was handed out with it must wait for what was stashed
SELECT complete('after');
SELECT * FROM claims();
SELECT complete('not yet', 'after');
SELECT * FROM actors('hosted') WHERE actor_key = 's';

-- # stop(): state and timers are gone, watchers are told, later mail goes to a fresh actor
SELECT put('hosted', 'watcher', 'watches');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('watches');
SELECT djactor.watch('hosted', 'x');
CALL djactor.end_turn('{}');
COMMIT;
-- (told at once, since it is not there)
SELECT * FROM claims();
SELECT complete('down');
SELECT put('hosted', 'x', 'lives'), put('hosted', 'watcher', 'watches');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('lives');
SELECT djactor.set_timer('t', '1 h');
CALL djactor.end_turn('{"old": true}');
SELECT begin_turn('watches');
SELECT djactor.watch('hosted', 'x');
CALL djactor.end_turn();
COMMIT;
SELECT put('hosted', 'x', 'stops', 'fresh');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('stops');
SELECT djactor.stop();
CALL djactor.end_turn('{"ignored": true}');
COMMIT;
SELECT complete('fresh');
SELECT * FROM actors('hosted') WHERE actor_key = 'x';
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'hosted' AND actor_key = 'x';
SELECT * FROM claims();
SELECT complete('fresh', 'down');
SELECT * FROM actors('hosted') WHERE actor_key IN ('watcher', 'x');

-- # stop(discard => true): what waits goes to dead_letter
SELECT put('hosted', 'x', 'stops all', 'p', 'q');
SELECT * FROM claims(100, 2);
BEGIN;
SELECT begin_turn('stops all');
SELECT djactor.stop(discard => true);
CALL djactor.end_turn();
COMMIT;
SELECT complete('p');
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'hosted' ORDER BY id;
SELECT * FROM claims();
SELECT complete('down');

-- # In another session's settings, at another isolation level, it is the same
SELECT put('hosted', 'l', 'repeatable', 'serial');
SELECT * FROM claims();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT begin_turn('repeatable');
SELECT djactor.send('inside', 'l', '1') > 0 AS sent;
CALL djactor.end_turn('1');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT begin_turn('serial');
CALL djactor.end_turn('2');
COMMIT;
SELECT * FROM actors('hosted') WHERE actor_key = 'l';

-- # Called from functions, it does the same
SELECT put('hosted', 'f', 'in a function');
SELECT * FROM claims();
CREATE FUNCTION end_it(state jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CALL djactor.end_turn(state);
END $$;
BEGIN;
DO $$ BEGIN PERFORM begin_turn('in a function'); END $$;
SELECT end_it('"from a function"');
COMMIT;
SELECT * FROM actors('hosted') WHERE actor_key = 'f';
SELECT claims FROM djactor.host;

SELECT djactor.host_close();
CALL idle('inside');
SELECT actor_key, kind, payload, aside FROM djactor.message WHERE actor_type = 'hosted';
SELECT djactor.drop_actor_type('hosted', true), djactor.drop_actor_type('inside', true);
DELETE FROM djactor.dead_letter WHERE actor_type = 'hosted';
DELETE FROM djactor.reply;
DROP TABLE asked;
DROP FUNCTION end_it;
\i :tests/sql/include/hosted_end.sql
