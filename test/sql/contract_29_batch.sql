--
-- Contract 29: the messages of one batch share a transaction: its xid and now(). Each call runs at READ COMMITTED, and sees what
-- the turns before it have written. (Snapshots: test/specs/contract-29-snapshots.spec; pg_notify: test/t/030_contract.pl)
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

CREATE TABLE seen (n int, xid xid8, now timestamptz, isolation text, before bigint);
CREATE FUNCTION c29(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES (message::int, pg_current_xact_id(), now(), current_setting('transaction_isolation'), (SELECT count(*) FROM seen));
END $$;
SELECT djactor.define_actor_type('c29', 'c29', concurrency => 1);
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c29', 'a', to_jsonb(i) FROM generate_series(1, 200) i;
CALL idle('c29');

-- # Fewer transactions than messages; one now() each
SELECT count(*) AS messages, count(DISTINCT xid) < count(*) / 4 AS few_transactions, count(DISTINCT (xid, now)) = count(DISTINCT xid) AS one_now_each FROM seen;
SELECT DISTINCT isolation FROM seen;

-- # Each saw all that were before it
SELECT count(*) AS saw_all_before FROM seen WHERE before = n - 1;

-- # batch_size bounds it
TRUNCATE seen;
SELECT djactor.define_actor_type('c29', 'c29', concurrency => 1, batch_size => 10);
INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 'c29', 'a', to_jsonb(i) FROM generate_series(1, 200) i;
CALL idle('c29');
SELECT max(count) <= 10 AS at_most_10 FROM (SELECT count(*) FROM seen GROUP BY xid) s;

SELECT djactor.drop_actor_type('c29', true);
DROP TABLE seen;
DROP FUNCTION c29;
