--
-- Calendar time: rules with an anchor, cron, time zones; schedules from outside of turns.
-- Contract point 16; t/100_schedule has the same by workers whose clock jumps, test/time compares with others' calendars.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET IntervalStyle = 'postgres';
CREATE TABLE firing (serial serial PRIMARY KEY, actor_key text, name text, due_at timestamptz, missed int, at timestamptz);
CREATE FUNCTION note(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	IF m.kind = 'timer' THEN
		INSERT INTO firing (actor_key, name, due_at, missed, at)
			VALUES (m.actor_key, m.meta->>'name', (m.meta->>'due_at')::timestamptz, (m.meta->>'missed')::int, djactor.now());
		IF message ? 'fails' THEN
			RAISE EXCEPTION 'not today';
		END IF;
	ELSE
		EXECUTE message->>'do';
	END IF;
END $$;
-- at(moment, key, statement): has it done in a turn at that time
CREATE FUNCTION at(moment timestamptz, key text, statement text, type text DEFAULT 'sched') RETURNS void LANGUAGE sql AS $$
	INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at) VALUES (type, key, jsonb_build_object('do', statement), moment) $$;
SELECT djactor.define_actor_type('sched', 'note', max_attempts => 1, breaker_failures => NULL, settings => '{"TimeZone": "Europe/Berlin"}');
\set fired 'SELECT actor_key, string_agg(to_char(due_at AT TIME ZONE \'Europe/Berlin\', \'MM-DD HH24:MI\') || CASE WHEN missed > 0 THEN \' (\' || missed || \' missed)\' ELSE \'\' END, \', \' ORDER BY serial) AS fired, bool_or(at < due_at) AS early FROM firing GROUP BY 1 ORDER BY 1'

-- # A period counts from its anchor: the day of the month comes back after February, the time of day after the change
BEGIN;
SELECT djactor.schedule('sched', 'monthly', 't', at => '2101-01-31 09:00+01', every => '1 mon'),
	djactor.schedule('sched', 'quarterly', 't', at => '2100-11-30 09:00+01', every => '3 mons');
SELECT djactor.schedule('sched', 'daily', 't', at => '2101-03-26 02:30+01', every => '1 day'),
	djactor.schedule('sched', 'weekly', 't', at => '2101-03-20 02:30+01', every => '7 days'),
	djactor.schedule('sched', 'mixed', 't', at => '2101-03-25 14:30+01', every => '1 day 12 hours');
SELECT djactor.drain(until => '2101-03-29 12:00+02') > 0 AS drained;
SELECT djactor.unschedule('sched', key, 't') FROM unnest('{daily,mixed}'::text[]) key;
SELECT djactor.drain(until => '2101-06-01 12:00+02') > 0 AS drained;
:fired;
ROLLBACK;
BEGIN;
SELECT djactor.schedule('sched', 'yearly', 't', at => '2104-02-29 09:00+01', every => '1 year');
SELECT djactor.drain(until => '2108-03-01') AS drained;
SELECT due_at FROM firing ORDER BY 1;
ROLLBACK;

-- # Each night at half past two: once in the night that has no such time, at the first moment after it; once in the one that has it twice; each quarter of an hour goes on
BEGIN;
SELECT at('2101-03-26 12:00+01', 'named', $$SELECT djactor.set_timer('t', cron => '30 2 * * *')$$), at('2101-03-27 01:31+01', 'quarters', $$SELECT djactor.set_timer('t', cron => '*/15 * * * *')$$);
SELECT djactor.drain(until => '2101-03-27 03:20+02') > 0 AS drained;
SELECT djactor.unschedule('sched', 'quarters', 't');
SELECT djactor.drain(until => '2101-03-28 12:00+02') > 0 AS drained;
:fired;
ROLLBACK;
BEGIN;
SELECT at('2101-10-29 12:00+02', 'named', $$SELECT djactor.set_timer('t', cron => '30 2 * * *')$$), at('2101-10-30 02:31+02', 'halves', $$SELECT djactor.set_timer('t', cron => '*/30 * * * *')$$);
SELECT djactor.drain(until => '2101-10-30 03:10+01') > 0 AS drained;
SELECT djactor.unschedule('sched', 'halves', 't');
SELECT djactor.drain(until => '2101-10-31 12:00+01') > 0 AS drained;
SELECT actor_key, due_at FROM firing ORDER BY actor_key, serial;
ROLLBACK;

-- # A rule has the zone that it was given, else its type's, whatever the handler's function sets; also after a dead letter
CREATE FUNCTION elsewhere(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql SET TimeZone = 'America/New_York' AS $$ BEGIN PERFORM public.note(state, message); END $$;
SELECT djactor.define_actor_type('sched.elsewhere', 'elsewhere', max_attempts => 1, breaker_failures => NULL, settings => '{"TimeZone": "Asia/Tokyo"}');
BEGIN;
SELECT at('2101-03-25 08:00+00', key, format('SELECT djactor.set_timer(%L, at => %L, every => %L, time_zone => %L, payload => %L)', 't', '2101-03-25 09:00+01', '1 day', zone, payload), 'sched.elsewhere')
	FROM (VALUES ('berlin', 'Europe/Berlin', '{}'), ('fails', 'Europe/Berlin', '{"fails": 1}'), ('type', NULL, '{}')) v(key, zone, payload);
SELECT djactor.drain(until => '2101-03-28 12:00+00', on_error => 'retry') > 0 AS drained;
:fired;
SELECT actor_key, due_at AT TIME ZONE 'Europe/Berlin' AS next, last_fired_at = last_due AS fired, last_outcome
	FROM djactor.timer JOIN (VALUES ('berlin', '2101-03-28 07:00+00'::timestamptz), ('fails', '2101-03-28 07:00+00'), ('type', '2101-03-28 08:00+00')) v(actor_key, last_due) USING (actor_key) WHERE actor_type = 'sched.elsewhere' ORDER BY 1;
SELECT count(*) AS dead FROM djactor.dead_letter WHERE actor_type = 'sched.elsewhere';
ROLLBACK;

-- # A timer is shown as it was given, with its next times
BEGIN;
SELECT djactor.schedule('sched', 'shown', 'month', every => '1 mon', at => '2101-01-31 09:00', time_zone => 'Asia/Beirut', payload => '{"a": 1}'),
	djactor.schedule('sched', 'shown', 'leap', cron => '15 3 29 feb *', catch_up => 'skip') > now() AS leap, djactor.schedule('sched', 'shown', 'once', at => '2101-01-01 00:00');
SELECT name, every, anchor, cron, time_zone, catch_up, payload, paused_at, last_fired_at FROM djactor.timer WHERE actor_key = 'shown' ORDER BY 1;
SELECT djactor.timer_next('sched', 'shown', 'month', 4);
SELECT djactor.timer_next('sched', 'shown', 'once', 4);
SELECT count(*), bool_and(to_char(t AT TIME ZONE 'Europe/Berlin', 'MM-DD HH24:MI') = '02-29 03:15') FROM djactor.timer_next('sched', 'shown', 'leap', 30) t;
SELECT djactor.timer_next('sched', 'shown', 'none', 4);
ROLLBACK;

-- # What was missed is one firing with its count, or, with skip, none
BEGIN;
SELECT at('2101-01-01 00:30+00', key, format('SELECT djactor.set_timer(%L, %s, catch_up => %L)', 't', rule, catch_up))
	FROM (VALUES ('every once', 'every => ''1 h''', 'once'), ('every skip', 'every => ''1 h''', 'skip'), ('cron once', 'cron => ''@hourly''', 'once'), ('cron skip', 'cron => ''@hourly''', 'skip'), ('at skip', 'at => ''2101-01-01 01:00+00''', 'skip')) v(key, rule, catch_up);
-- an outage: the type is paused until 6:10
SELECT at('2101-01-01 00:40+00', 'breaks', $$SELECT djactor.pause('sched')$$, 'sched');
SELECT djactor.define_actor_type('sched.helper', 'note');
SELECT at('2101-01-01 06:10+00', 'mends', $$SELECT djactor.resume('sched')$$, 'sched.helper');
SELECT djactor.drain(until => '2101-01-01 08:20+00') > 0 AS drained;
SELECT actor_key, string_agg(to_char(due_at, 'HH24:MI') || ' ' || missed || ' at ' || to_char(at, 'HH24:MI'), ', ' ORDER BY serial) AS fired FROM firing GROUP BY 1 ORDER BY 1;
SELECT actor_key, name, due_at FROM djactor.timer WHERE actor_type = 'sched' ORDER BY 1;
ROLLBACK;

-- # schedule() said again changes nothing; another rule, payload or time does
BEGIN;
SELECT djactor.schedule('sched', 'again', 't', cron => '0 4 1 1 *') AS first \gset
SELECT message_id AS id FROM djactor.timer WHERE actor_key = 'again' \gset
SELECT djactor.schedule('sched', 'again', 't', cron => '0 4 1 1 *') = :'first' AS same;
SELECT message_id = :id AS same FROM djactor.timer WHERE actor_key = 'again';
SELECT djactor.schedule('sched', 'again', 't', cron => '0 4 1 1 *', payload => '{"new": 1}') = :'first' AS same;
SELECT t.message_id = :id AS same, m.payload, (SELECT count(*) FROM djactor.message WHERE actor_key = 'again') AS messages FROM djactor.timer t JOIN djactor.message m ON m.id = message_id WHERE t.actor_key = 'again';
SELECT djactor.schedule('sched', 'again', 't', cron => '0 4 1 1 *', time_zone => 'Asia/Tokyo') = :'first' AS same;
SELECT djactor.schedule('sched', 'again', 't', every => '1 mon') = djactor.schedule('sched', 'again', 't', every => '1 mon') AS same;
SELECT djactor.schedule('sched', 'again', 't', every => '30 days') > now() + interval '29 days' AS another;
SELECT djactor.schedule('sched', 'again', 't', every => '1 day', at => '2021-03-01 04:00+00') BETWEEN now() AND now() + interval '1 day' AS what_is_past_is_not_made_up_for;
SELECT djactor.schedule('sched', 'again', 't', every => '1 day', at => '2021-03-01 04:00+00') = (SELECT due_at FROM djactor.timer WHERE actor_key = 'again') AS same;
SELECT count(*) FROM djactor.message WHERE actor_key = 'again';
ROLLBACK;

-- # The clock was a year ahead: schedule() again puts it right, the phase is kept where there is one
BEGIN;
SELECT at(now() + interval '1 year', 'ahead', $$SELECT djactor.set_timer('cron', cron => '0 * * * *'), djactor.set_timer('every', every => '1 h', at => '2021-01-01 00:20+00')$$);
SELECT djactor.drain(until => now() + interval '1 year') AS handled;
SELECT name, due_at > now() + interval '11 months' AS in_a_year FROM djactor.timer WHERE actor_key = 'ahead' ORDER BY 1;
SELECT djactor.schedule('sched', 'ahead', 'cron', cron => '0 * * * *') <= now() + interval '1 h' AS soon,
	to_char(djactor.schedule('sched', 'ahead', 'every', every => '1 h', at => '2021-01-01 00:20+00'), 'MI') AS minute;
SELECT name, due_at > now() AND due_at <= now() + interval '1 h' AS soon FROM djactor.timer WHERE actor_key = 'ahead' ORDER BY 1;
ROLLBACK;

-- # run_now(): now, and then as the rule says; a firing that waited is replaced
BEGIN;
SELECT djactor.schedule('sched', 'now', 't', at => '2101-01-01 04:00+00', every => '1 day') AS due;
SELECT djactor.run_now('sched', 'now', 't') > 0 AS sent;
SELECT count(*) AS messages FROM djactor.message WHERE actor_key = 'now';
SELECT djactor.drain();
SELECT due_at = now() OR due_at > now() - interval '1 min' AS now, missed FROM firing;
SELECT djactor.timer_next('sched', 'now', 't', 2);
SELECT djactor.drain(until => '2101-01-02 05:00+00');
SELECT due_at, missed FROM firing WHERE due_at > now() + interval '1 h';
ROLLBACK;

-- # pause() and resume() of one timer: what falls into the pause is not made up for; run_now() works meanwhile; the rule may change
BEGIN;
SELECT at('2101-01-01 00:30+00', 'p', $$SELECT djactor.set_timer('t', cron => '@hourly', catch_up => 'once')$$), at('2101-01-01 01:30+00', 'q', $$SELECT djactor.pause('sched', 'p', 't')$$),
	at('2101-01-01 03:30+00', 'q', $$SELECT djactor.pause('sched', 'p', 't'), djactor.run_now('sched', 'p', 't')$$), at('2101-01-01 05:30+00', 'q', $$SELECT djactor.resume('sched', 'p', 't')$$);
SELECT djactor.drain(until => '2101-01-01 04:10+00') AS handled;
SELECT paused_at, message_id, last_outcome FROM djactor.timer WHERE actor_key = 'p';
SELECT djactor.timer_next('sched', 'p', 't', 2);
SELECT djactor.schedule('sched', 'p', 't', cron => '@hourly') > now() AS still_paused, djactor.schedule('sched', 'p', 't', cron => '0 * * * *') > now() AS still_paused;
SELECT paused_at, message_id FROM djactor.timer WHERE actor_key = 'p';
SELECT djactor.drain(until => '2101-01-01 07:10+00') AS handled;
SELECT to_char(due_at, 'HH24:MI') AS due, missed FROM firing WHERE actor_key = 'p' AND due_at > '2100-01-01' ORDER BY serial;
ROLLBACK;

-- # unschedule() takes back a firing in the mailbox, too, and what waits behind it goes on
SELECT djactor.pause('sched');
SELECT djactor.schedule('sched', 'u', 't', after => '1 h', payload => '{"fails": 1}') > now() AS later, djactor.run_now('sched', 'u', 't') > 0 AS sent;
SELECT count(*) AS in_mailbox FROM djactor.message WHERE actor_key = 'u' AND deliver_at IS NULL;
SELECT djactor.unschedule('sched', 'u', 't'), djactor.unschedule('sched', 'u', 't') AS again;
SELECT djactor.resume('sched');
CALL idle('sched');
SELECT count(*) AS fired FROM firing WHERE actor_key = 'u';

-- # By workers: a schedule of an actor that has never had a turn; each second
SELECT djactor.schedule('sched', 'worker', 't', every => '20 ms') > now() AS later;
CALL wait_until($$(SELECT count(*) FROM firing WHERE actor_key = 'worker') >= 3$$);
SELECT djactor.unschedule('sched', 'worker', 't');
SELECT count(DISTINCT due_at) = count(*) AS each_once, bool_or(at < due_at) AS early FROM firing WHERE actor_key = 'worker';

-- # A pause does not hide a timer from who drops the type; stop() ends schedules
SELECT djactor.define_actor_type('sched.dropped', 'note');
SELECT djactor.schedule('sched.dropped', 'd', 't', cron => '@daily') > now() AS later, djactor.pause('sched.dropped', 'd', 't');
CALL fails($$SELECT djactor.drop_actor_type('sched.dropped')$$);
SELECT djactor.drop_actor_type('sched.dropped', true);
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'sched.dropped';

-- # A handler that schedules its own timer with a new payload: that is the next firing's, this one comes once
CREATE FUNCTION again(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
BEGIN
	INSERT INTO firing (actor_key, name, due_at, missed) VALUES (m.actor_key, message->>'n', (m.meta->>'due_at')::timestamptz, (m.meta->>'missed')::int);
	IF message ? 'pauses' THEN
		PERFORM djactor.pause(m.actor_type, m.actor_key, 't');
	ELSE
		PERFORM djactor.schedule(m.actor_type, m.actor_key, 't', every => '1 h', at => '2101-01-01 01:00+00', payload => jsonb_build_object('n', (message->>'n')::int + 1));
	END IF;
END $$;
SELECT djactor.define_actor_type('sched.again', 'again', max_attempts => 1, settings => '{"TimeZone": "UTC"}');
BEGIN;
SELECT djactor.schedule('sched.again', 'own', 't', every => '1 h', at => '2101-01-01 01:00+00', payload => '{"n": 1}') AS due;
SELECT djactor.drain(until => '2101-01-01 03:10+00', max => 100) AS handled;
SELECT name AS n, due_at, missed FROM firing WHERE actor_key = 'own' ORDER BY serial;
SELECT due_at, payload, last_outcome FROM djactor.timer WHERE actor_key = 'own';
ROLLBACK;

-- # A handler that pauses its own timer: this firing is over, also when it was the only one
BEGIN;
SELECT djactor.schedule('sched.again', 'rule', 't', every => '1 h', at => '2101-01-01 01:00+00', payload => '{"pauses": 1}') AS rule,
	djactor.schedule('sched.again', 'once', 't', at => '2101-01-01 01:00+00', payload => '{"pauses": 1}') AS once;
SELECT djactor.drain(until => '2101-01-01 03:10+00', max => 100) AS handled;
SELECT actor_key, due_at, message_id, paused_at IS NOT NULL AS paused, last_outcome FROM djactor.timer WHERE actor_type = 'sched.again' ORDER BY 1;
ROLLBACK;

-- # A type whose TimeZone is a number of hours, as the server takes it
SELECT djactor.define_actor_type('sched.hours', 'note', settings => '{"TimeZone": "-5.5"}');
BEGIN;
SELECT (djactor.schedule('sched.hours', 'h', 't', cron => '0 12 1 1 *') AT TIME ZONE 'UTC')::time AS utc;
SELECT (djactor.timer_next('sched.hours', 'h', 't', 2) AT TIME ZONE 'UTC')::time AS utc;
CALL fails($$SELECT djactor.schedule('sched.hours', 'h', 't', cron => '@daily', time_zone => '1e9')$$);
CALL fails($$SELECT djactor.schedule('sched.hours', 'h', 't', cron => '@daily', time_zone => 'nan')$$);
ROLLBACK;

-- # From one end of time to the other
SELECT djactor.every_next('1 h', '4713-01-01 00:30 BC', '294270-01-01', 'UTC', 2);
SELECT djactor.every_next('1 day', '4713-01-01 00:30 BC', '294270-01-01', 'UTC', 2);
SELECT djactor.every_next('1 h', '4713-01-01 00:30 BC', '294276-12-31 23:00', 'UTC', 5);
SELECT djactor.every_next('1 ms', '4713-01-01 00:30 BC', '294270-01-01', 'UTC', 1);

-- # Who may not act for the type's owner may not schedule
CREATE ROLE sched_stranger;
SET ROLE sched_stranger;
CALL refused($$SELECT djactor.schedule('sched', 'x', 't', cron => '@daily')$$);
CALL refused($$SELECT djactor.unschedule('sched', 'x', 't')$$);
CALL refused($$SELECT djactor.run_now('sched', 'x', 't')$$);
CALL refused($$SELECT djactor.pause('sched', 'x', 't')$$);
CALL refused($$SELECT djactor.resume('sched', 'x', 't')$$);
CALL refused($$SELECT djactor.timer_next('sched', 'x', 't', 1)$$);
SELECT djactor.cron_next('@daily', '2101-01-01', 'UTC');
RESET ROLE;
DROP ROLE sched_stranger;

-- # What is no schedule
CALL fails($$SELECT djactor.run_now('sched', 'x', 't')$$);
CALL fails($$SELECT djactor.pause('sched', 'x', 't')$$);
CALL fails($$SELECT djactor.schedule('sched.none', 'x', 't', cron => '@daily')$$);
CALL fails($$SELECT djactor.schedule('sched', '', 't', cron => '@daily')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', '', cron => '@daily')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '@daily', every => '1 day')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '@daily', at => now())$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', at => now(), after => '1 s')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', at => now(), time_zone => 'UTC')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '@daily', time_zone => 'Mars/Olympus')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '@daily', catch_up => 'all')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', every => '0')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', every => '-1 day')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '0 0 * * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '0 0 * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '5-3 * * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '* 22-2 * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '60 * * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '* 24 * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '* * 0 * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '* * * 13 *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '* * * * 8')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '* * * * MON-')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '*/0 * * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '*/90 * * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => 'a * * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '1,,2 * * * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '* * * FOO *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '* * L-3 * *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '0 0 30 2 *')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '@reboot')$$);
CALL fails($$SELECT djactor.schedule('sched', 'x', 't', cron => '@every 5m')$$);
CALL fails($$SELECT djactor.cron_next('@daily', 'infinity')$$);
CALL fails($$SELECT djactor.cron_next('@daily', now(), 'UTC', -1)$$);
SELECT count(*) AS timers FROM djactor.timer WHERE actor_type = 'sched';

-- # A zone that the server does not know any more: the timer fires, and is paused
BEGIN;
SELECT at('2101-05-01 08:00+00', 'gone', $$SELECT djactor.set_timer('t', every => '1 day', at => '2101-05-01 10:00+02', time_zone => 'Europe/Rome')$$);
SELECT djactor.drain(until => '2101-05-01 08:00+00') AS drained;
SET LOCAL session_replication_role = replica;
UPDATE djactor.timer SET time_zone = 'Europe/Atlantis' WHERE actor_key = 'gone';
SET LOCAL session_replication_role = origin;
SELECT djactor.drain(until => '2101-05-03 12:00+00') AS drained;
SELECT name, due_at, paused_at IS NOT NULL AS paused, last_outcome, message_id FROM djactor.timer WHERE actor_key = 'gone';
CALL fails($$SELECT djactor.resume('sched', 'gone', 't')$$);
SELECT djactor.schedule('sched', 'gone', 't', every => '1 day', at => '2101-05-01 10:00+02', time_zone => 'Europe/Rome') AS next;
SELECT djactor.resume('sched', 'gone', 't');
SELECT due_at, paused_at, time_zone FROM djactor.timer WHERE actor_key = 'gone';
ROLLBACK;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'sched%';
DROP FUNCTION note, at, elsewhere;
DROP TABLE firing;
