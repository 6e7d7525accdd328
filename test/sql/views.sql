--
-- The views mailbox and worker.
-- Section 2 (views).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION wait_for_lock(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(816); END';
SELECT djactor.define_actor_type('views', 'wait_for_lock');

-- # mailbox: depth and age of what waits, for each actor with mail; none of it was put off
SELECT djactor.pause('views');
INSERT INTO djactor.message (actor_type, actor_key) VALUES ('views', 'a'), ('views', 'a'), ('views', 'b');
INSERT INTO djactor.message (actor_type, actor_key, deliver_at) VALUES ('views', 'b', now() + '1 d');
SELECT actor_type, actor_key, depth, oldest_sent_at <= now() AS sent, oldest_age >= '0' AS aged, put_offs, last_error FROM djactor.mailbox WHERE actor_type = 'views' ORDER BY 2;

-- # worker: who runs what, since when
SELECT pg_advisory_lock(816);
SELECT djactor.resume('views');
CALL wait_until($$EXISTS (SELECT FROM djactor.worker WHERE actor_type = 'views' AND resident)$$);
SELECT w.state, w.resident, w.role = current_user::regrole AS my_role, w.since <= clock_timestamp() AS since,
	m.actor_type, a.backend_type, a.application_name, a.state AS activity, a.query
FROM djactor.worker w JOIN djactor.message m ON m.id = w.message_id JOIN pg_stat_activity a ON a.pid = w.pid
WHERE w.actor_type = 'views' ORDER BY w.resident DESC LIMIT 1;
SELECT pg_advisory_unlock(816);
CALL idle('views');

-- # Idle again, the resident stays; there is one for each role
CALL wait_until($$NOT EXISTS (SELECT FROM djactor.worker WHERE state <> 'idle')$$);
SELECT count(*) FILTER (WHERE resident) AS residents, bool_and(message_id IS NULL AND actor_type IS NULL) AS nothing_runs
FROM djactor.worker WHERE role = current_user::regrole;

SELECT djactor.drop_actor_type('views', true);
DROP FUNCTION wait_for_lock;
