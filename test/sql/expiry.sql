--
-- Messages that expire are not handled any more, and not lost either.
-- Section 2 (expires_at, dead_letter), section 3 point 6.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
SELECT djactor.define_actor_type('expiry', 'collect');

-- # Too late when it is sent: it goes to dead_letter, no handler runs, no actor comes to life
SELECT djactor.send('expiry', 'late', '"late"', expires_at => now() - interval '1 s', headers => '{"h": 1}') AS id \gset
CALL idle('expiry');
SELECT count(*) AS actors FROM djactor.actor WHERE actor_type = 'expiry';
SELECT id = :id AS same_id, actor_key, payload, headers, reason, attempts, sqlstate, error, context FROM djactor.dead_letter WHERE actor_type = 'expiry';

-- # In time
SELECT djactor.send('expiry', 'in time', '1', expires_at => now() + interval '1 day') > 0 AS sent;
SELECT djactor.send('expiry', 'in time', '2', expires_at => 'infinity') > 0 AS sent;
CALL idle('expiry');
SELECT actor_key, state FROM djactor.actor WHERE actor_type = 'expiry';

-- # It expires while the type is paused; its neighbours do not
SELECT djactor.pause('expiry');
INSERT INTO djactor.message (actor_type, actor_key, payload, expires_at) VALUES
	('expiry', 'paused', '1', NULL), ('expiry', 'paused', '2', clock_timestamp() + '20 ms'), ('expiry', 'paused', '3', NULL);
CALL wait_until($$clock_timestamp() > (SELECT expires_at FROM djactor.message WHERE actor_key = 'paused' AND payload = '2')$$);
SELECT djactor.resume('expiry');
CALL idle('expiry');
SELECT state, turns FROM djactor.actor WHERE actor_type = 'expiry' AND actor_key = 'paused';
SELECT payload, reason FROM djactor.dead_letter WHERE actor_type = 'expiry' AND actor_key = 'paused';

-- # A delay beyond its expiry: it is given up when its time comes
SELECT djactor.send('expiry', 'both', '1', deliver_at => clock_timestamp() + '50 ms', expires_at => clock_timestamp() + '20 ms') > 0 AS sent;
CALL wait_until($$EXISTS (SELECT FROM djactor.dead_letter WHERE actor_type = 'expiry' AND actor_key = 'both')$$);
SELECT reason FROM djactor.dead_letter WHERE actor_type = 'expiry' AND actor_key = 'both';
SELECT count(*) AS waiting FROM djactor.message WHERE actor_type = 'expiry';

DELETE FROM djactor.dead_letter WHERE actor_type = 'expiry';
SELECT djactor.drop_actor_type('expiry', true);
