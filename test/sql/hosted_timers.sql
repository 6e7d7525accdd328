--
-- Timers of hosted types: those that recur, in the time zone of their type; what a stop ends.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
\i :tests/sql/include/hosted.sql
SET TimeZone = 'Asia/Tokyo';
SELECT djactor.define_actor_type('hosted.timers', NULL, hosted => true);
SET TimeZone = 'UTC';
CREATE FUNCTION next(until timestamptz) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO taken (word, token, id) SELECT coalesce(payload #>> '{}', kind), t.token, t.id FROM djactor.drain_take(until) t;
	RETURN CASE WHEN FOUND THEN (SELECT word FROM taken ORDER BY serial DESC LIMIT 1) || ' at minute ' || round(extract(epoch FROM djactor.now() - now()) / 60) END;
END $$;

-- # Each period, from one transaction to the next; a rule of the calendar by the zone of the type, or its own
BEGIN;
SELECT put('hosted.timers', 'a', 'sets');
SELECT next(now());
SELECT begin_turn('sets');
SELECT djactor.set_timer('each', every => '25 min', payload => '"each"'), djactor.set_timer('at three', cron => '0 3 * * *', payload => '"at three"'),
	djactor.set_timer('at three there', cron => '0 3 * * *', time_zone => 'Europe/Berlin', payload => '"there"');
CALL djactor.end_turn('{"set": true}');
SELECT name, time_zone, to_char(due_at AT TIME ZONE coalesce(time_zone, 'Asia/Tokyo'), 'HH24:MI') AS due FROM djactor.timer WHERE cron IS NOT NULL ORDER BY 1;
ROLLBACK;
BEGIN;
SELECT put('hosted.timers', 'a', 'sets');
SELECT next(now());
SELECT begin_turn('sets');
SELECT djactor.set_timer('each', every => '25 min', payload => '"each"');
CALL djactor.end_turn('{"set": true}');
SELECT next(now() + interval '1 h');
SELECT begin_turn('each');
SELECT (djactor.message()).kind, (djactor.message()).meta ->> 'name' AS name;
CALL djactor.end_turn();
SELECT next(now() + interval '1 h');
SELECT complete('each');
SELECT next(now() + interval '1 h');

-- # Cancelled in a turn of its own, it does not fire again
SELECT next(now() + interval '2 h');
SELECT begin_turn('each');
SELECT djactor.cancel_timer('each');
CALL djactor.end_turn('{"set": false}');
SELECT next(now() + interval '1 day');
SELECT state, turns FROM actors('hosted.timers');
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'hosted.timers';
ROLLBACK;

-- # A stop answers the asks that the actor has deferred, and ends its timers
SELECT djactor.host_open('{hosted.timers}') > 0 AS opened;
SELECT djactor.send('hosted.timers', 'b', '"asks"', wants_reply => true) AS ask \gset
SELECT put('hosted.timers', 'b', 'stops');
SELECT * FROM claims();
BEGIN;
SELECT begin_turn('asks');
SELECT djactor.defer_reply() > 0 AS deferred;
SELECT djactor.set_timer('t', '1 day');
CALL djactor.end_turn();
COMMIT;
BEGIN;
SELECT begin_turn('stops');
SELECT djactor.stop();
CALL djactor.end_turn();
COMMIT;
SELECT error ->> 'reason' AS reason FROM djactor.reply WHERE message_id = :ask;
SELECT count(*) AS actors FROM actors('hosted.timers');
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'hosted.timers';
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'hosted.timers';

SELECT djactor.host_close();
SELECT djactor.drop_actor_type('hosted.timers', true);
DELETE FROM djactor.reply;
DROP FUNCTION next;
RESET TimeZone;
\i :tests/sql/include/hosted_end.sql
