--
-- alter_actor_type(): what is not named stays as it is.
-- Section 6.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql
CREATE FUNCTION upgrade(state jsonb, from_version int) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION collect_again(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT collect($1, $2)';

-- changed(options): which columns of the type alter_actor_type() changes, from what and to what
CREATE FUNCTION changed(options text) RETURNS TABLE (col text, before text, after text) LANGUAGE plpgsql AS $$
DECLARE
	was jsonb := to_jsonb(t) FROM djactor.actor_type t WHERE name = 'alter';
BEGIN
	EXECUTE format('SELECT djactor.alter_actor_type(%L, %s)', 'alter', options);
	RETURN QUERY SELECT n.key, was ->> n.key, n.value
		FROM djactor.actor_type t, jsonb_each_text(to_jsonb(t)) n
		WHERE name = 'alter' AND (was ->> n.key) IS DISTINCT FROM n.value ORDER BY 1;
END $$;

SELECT djactor.define_actor_type('alter', 'collect',
	initial_state => '{"n": 0}', state_version => 2, upgrade_handler => 'upgrade', max_attempts => 3,
	backoff => '10 ms', backoff_max => '1 mon', retry_order => 'skip', on_exhausted => 'suspend',
	handler_timeout => '0', batch_size => 7, concurrency => 2, mailbox_limit => 1000,
	on_full => 'dead_letter', breaker_failures => 4, breaker_window => '1 h', journal => '1 mon 2 days');
SELECT djactor.pause('alter');

-- # Nothing named, nothing changed; one option alone is one
SELECT * FROM changed('owner => NULL');
SELECT djactor.alter_actor_type('alter');
SELECT * FROM changed('max_attempts => 9');
SELECT * FROM changed($$backoff_max => '1 h', retry_order => 'hold'$$);

-- # Each option
SELECT * FROM changed($$initial_state => '[]', state_version => 3, backoff => '1 s', on_exhausted => 'dead_letter',
	handler_timeout => '1 min', batch_size => 8, concurrency => 3, mailbox_limit => 10, on_full => 'raise',
	breaker_failures => 5, breaker_window => '2 h', journal => '1 day'$$);
SELECT * FROM changed($$handler => 'collect_again'$$);

-- # NULL is none, where none is possible
SELECT * FROM changed('batch_size => NULL, concurrency => NULL, mailbox_limit => NULL');
SELECT * FROM changed('breaker_failures => NULL, journal => NULL, upgrade_handler => NULL');
SELECT * FROM changed($$upgrade_handler => 'upgrade(jsonb, int)'$$);

-- # What it says holds: the new handler and its options are used
SELECT djactor.resume('alter');
SELECT djactor.send('alter', 'k', '1') > 0 AS sent;
CALL idle('alter');
SELECT state, state_version FROM djactor.actor WHERE actor_type = 'alter';

-- # A handler that is gone keeps nobody from changing something else
ALTER FUNCTION collect_again(jsonb, jsonb) RENAME TO gone;
SELECT * FROM changed('max_attempts => 2');
CALL fails($$SELECT djactor.alter_actor_type('alter', 'collect_again')$$);
CALL fails($$SELECT djactor.alter_actor_type('alter', owner => (quote_ident(current_user))::regrole)$$);
ALTER FUNCTION gone(jsonb, jsonb) RENAME TO collect_again;

-- # Checked as a definition is
CALL fails($$SELECT djactor.alter_actor_type('alter', max_attempts => 0)$$);
CALL fails($$SELECT djactor.alter_actor_type('alter', batch_size => 0)$$);
CALL fails($$SELECT djactor.alter_actor_type('alter', journal => '-2 s')$$);
CALL fails($$SELECT djactor.alter_actor_type('alter', retry_order => 'later')$$);
CALL fails($$SELECT djactor.alter_actor_type('alter', upgrade_handler => 'collect')$$);
CALL fails($$SELECT djactor.alter_actor_type('alter.nobody', max_attempts => 1)$$);
CALL fails($$SELECT djactor.alter_actor_type(NULL, max_attempts => 1)$$);
BEGIN READ ONLY;
CALL fails($$SELECT djactor.alter_actor_type('alter', max_attempts => 1)$$);
ROLLBACK;

-- # Rolled back it never was
BEGIN;
SELECT djactor.alter_actor_type('alter', max_attempts => 77);
ROLLBACK;
SELECT max_attempts FROM djactor.actor_type WHERE name = 'alter';

-- # Rights: EXECUTE, and to act for the owner
CREATE ROLE regress_dja_alter LOGIN;
CREATE SCHEMA regress_dja_alter AUTHORIZATION regress_dja_alter;
SET ROLE regress_dja_alter;
CALL refused($$SELECT djactor.alter_actor_type('alter', max_attempts => 1)$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION djactor.define_actor_type, djactor.alter_actor_type TO regress_dja_alter;
SET ROLE regress_dja_alter;
CALL refused($$SELECT djactor.alter_actor_type('alter', max_attempts => 1)$$);
CREATE FUNCTION regress_dja_alter.mine(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
SELECT djactor.define_actor_type('alter.mine', 'regress_dja_alter.mine');
SELECT djactor.alter_actor_type('alter.mine', max_attempts => 2);
CALL refused($$SELECT djactor.alter_actor_type('alter.mine', owner => 'pg_monitor')$$);
RESET ROLE;

-- # What took the handler's place is not taken over with it
CREATE ROLE regress_dja_other;
ALTER FUNCTION regress_dja_alter.mine(jsonb, jsonb) OWNER TO regress_dja_other;
SELECT djactor.alter_actor_type('alter.mine', max_attempts => 3);
SELECT max_attempts, handler_owner FROM djactor.actor_type WHERE name = 'alter.mine';

-- # A new owner
SELECT djactor.alter_actor_type('alter.mine', 'collect');
SELECT djactor.alter_actor_type('alter.mine', owner => (quote_ident(current_user))::regrole);
SELECT handler, owner = (quote_ident(current_user))::regrole AS owner_is_me FROM djactor.actor_type WHERE name = 'alter.mine';

SELECT djactor.drop_actor_type('alter', true), djactor.drop_actor_type('alter.mine', true);
DROP FUNCTION collect_again(jsonb, jsonb), changed(text), upgrade(jsonb, int);
DROP FUNCTION regress_dja_alter.mine(jsonb, jsonb);
DROP SCHEMA regress_dja_alter;
REVOKE EXECUTE ON FUNCTION djactor.define_actor_type, djactor.alter_actor_type FROM regress_dja_alter;
DROP OWNED BY regress_dja_other;
DROP ROLE regress_dja_alter, regress_dja_other;

-- # Of the settings those that are named, and what the session has counts for nothing
SELECT djactor.define_actor_type('alter', 'collect', settings => '{"TimeZone": "Asia/Tokyo", "shop.tenant": "acme"}');
SET TimeZone = 'UTC';
SELECT djactor.alter_actor_type('alter', settings => '{"timezone": "Europe/Berlin", "shop.branch": 7}');
SELECT settings ->> 'TimeZone' AS zone, settings ->> 'shop.tenant' AS tenant, settings ->> 'shop.branch' AS branch FROM djactor.actor_type WHERE name = 'alter';
SELECT djactor.alter_actor_type('alter', settings => '{"TimeZone": null, "shop.tenant": null}');
SELECT settings ->> 'TimeZone' AS zone, settings ->> 'shop.tenant' AS tenant, settings ->> 'shop.branch' AS branch FROM djactor.actor_type WHERE name = 'alter';
