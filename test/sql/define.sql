--
-- define_actor_type(): options, their defaults, and defining again.
-- Section 2 (define).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- # Only name and handler are needed
SELECT djactor.define_actor_type('define.plain', 'collect');
\x on
SELECT name, handler, owner = current_user::regrole AS owner_is_me, initial_state, max_attempts,
	backoff, backoff_max, retry_order, on_exhausted, handler_timeout, batch_size, concurrency,
	mailbox_limit, on_full, paused, paused_reason, problem
FROM djactor.actor_type WHERE name = 'define.plain';

-- # Every option is kept
SELECT djactor.define_actor_type('define.full', 'public.collect(jsonb, jsonb)',
	initial_state => '{"n": 0}', max_attempts => 3, backoff => '10 ms', backoff_max => '1 day',
	retry_order => 'skip', on_exhausted => 'suspend', handler_timeout => '0', batch_size => 7,
	concurrency => 2, mailbox_limit => 1000, on_full => 'dead_letter',
	owner => (quote_ident(current_user))::regrole);
SELECT name, handler, initial_state, max_attempts,
	backoff, backoff_max, retry_order, on_exhausted, handler_timeout, batch_size, concurrency,
	mailbox_limit, on_full
FROM djactor.actor_type WHERE name = 'define.full';

-- # Defined again, an omitted option gets its default again; paused is never touched
SELECT djactor.pause('define.full');
SELECT djactor.define_actor_type('define.full', 'collect', max_attempts => 9);
SELECT name, initial_state, max_attempts,
	backoff, backoff_max, retry_order, on_exhausted, handler_timeout, batch_size, concurrency,
	mailbox_limit, on_full, paused, paused_reason IS NOT NULL AS has_paused_reason
FROM djactor.actor_type WHERE name = 'define.full';
\x off

-- # The handler is stored as a qualified signature, however it was written
CREATE SCHEMA "Odd, schema";
CREATE FUNCTION "Odd, schema"."Odd.handler"(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
SELECT djactor.define_actor_type('define.odd', '"Odd, schema"."Odd.handler"');
SELECT djactor.define_actor_type('define.signature', 'collect( JSONB , jsonb )');
SELECT name, handler FROM djactor.actor_type WHERE name LIKE 'define.%' ORDER BY name;

-- # A handler with the same name and other arguments does not disturb
CREATE FUNCTION twofold(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION twofold(state int, message int) RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT djactor.define_actor_type('define.twofold', 'twofold');
SELECT handler FROM djactor.actor_type WHERE name = 'define.twofold';

-- # A name may have 255 bytes and any characters
SELECT djactor.define_actor_type(repeat('é', 127) || 'x', 'collect');
SELECT djactor.send(repeat('é', 127) || 'x', 'k', '1') > 0 AS sent;
CALL idle(repeat('é', 127) || 'x');
SELECT state FROM djactor.actor WHERE actor_type = repeat('é', 127) || 'x';

-- # A definition that is rolled back never was
BEGIN;
SELECT djactor.define_actor_type('define.undone', 'collect');
SELECT djactor.send('define.undone', 'k') > 0 AS sent;
ROLLBACK;
SELECT count(*) FROM djactor.actor_type WHERE name = 'define.undone';
CALL fails($$SELECT djactor.send('define.undone', 'k')$$);

-- # Defining and sending in one transaction
BEGIN;
SELECT djactor.define_actor_type('define.at_once', 'collect');
INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('define.at_once', 'k', '"hello"');
COMMIT;
CALL idle('define.at_once');
SELECT state FROM djactor.actor WHERE actor_type = 'define.at_once';

SELECT count(djactor.drop_actor_type(name, true)) AS dropped FROM djactor.actor_type
WHERE name LIKE 'define.%' OR name LIKE 'é%';
DROP SCHEMA "Odd, schema" CASCADE;
DROP FUNCTION twofold(jsonb, jsonb), twofold(int, int);
