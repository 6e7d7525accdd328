--
-- Contract 6: every accepted message is committed at most once, and ends as handled, dead-lettered, cancelled or
-- expired, or is held by a pause or a suspension. Nothing is dropped silently: the books agree.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE TABLE handled (message_id bigint);
CREATE FUNCTION c06(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO handled VALUES ((djactor.message()).id);
	CASE message ->> 'do'
		WHEN 'fail' THEN RAISE EXCEPTION 'fails always';
		WHEN 'fail once' THEN
			IF (djactor.message()).attempts = 0 THEN
				RAISE EXCEPTION 'fails once';
			END IF;
		WHEN 'reject' THEN PERFORM djactor.reject('not wanted');
		ELSE NULL;
	END CASE;
END $$;
SELECT djactor.define_actor_type('c06', 'c06', max_attempts => 2, backoff => '1 ms');
SELECT djactor.define_actor_type('c06.suspend', 'c06', max_attempts => 1, on_exhausted => 'suspend');
SELECT djactor.define_actor_type('c06.paused', 'c06');
SELECT djactor.pause('c06.paused');

-- # 300 messages of all kinds
CREATE TABLE sent (message_id bigint, fate text);
BEGIN;
INSERT INTO sent SELECT djactor.send('c06', (i % 7)::text, jsonb_build_object('do', fate),
		expires_at => CASE WHEN fate = 'expire' THEN now() - interval '1 s' END,
		deliver_at => CASE WHEN fate = 'cancel' THEN now() + interval '1 day' END), fate
	FROM generate_series(1, 200) i, LATERAL (SELECT ('{ok,fail,fail once,reject,expire,cancel,ok,ok}'::text[])[1 + i % 8]) f (fate);
INSERT INTO sent SELECT djactor.send('c06.suspend', (i % 3)::text, CASE WHEN i <= 3 THEN '{"do": "fail"}' ELSE '{}' END::jsonb), 'suspended'
	FROM generate_series(1, 50) i;
INSERT INTO sent SELECT djactor.send('c06.paused', i::text), 'paused' FROM generate_series(1, 50) i;
COMMIT;
SELECT count(*) FILTER (WHERE djactor.cancel(message_id)) AS cancelled FROM sent WHERE fate = 'cancel';
CALL idle('c06');
CALL idle('c06.suspend');

-- # Where they are
SELECT fate, count(*), count(h.message_id) AS handled, count(d.id) AS dead, count(m.id) AS waiting, min(d.reason) AS reason
FROM sent s
LEFT JOIN handled h USING (message_id)
LEFT JOIN djactor.dead_letter d ON d.id = s.message_id
LEFT JOIN djactor.message m ON m.id = s.message_id
GROUP BY fate ORDER BY fate COLLATE "C";

-- # Nobody was handled twice, and nobody is in two places
SELECT count(*) - count(DISTINCT message_id) AS twice FROM handled;
SELECT count(*) AS in_two_places FROM (SELECT message_id FROM handled
	UNION ALL SELECT id FROM djactor.dead_letter UNION ALL SELECT id FROM djactor.message) x (id)
GROUP BY id HAVING count(*) > 1;

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type WHERE name LIKE 'c06%';
DELETE FROM djactor.dead_letter WHERE actor_type = 'c06';
DROP FUNCTION c06;
DROP TABLE handled, sent;
