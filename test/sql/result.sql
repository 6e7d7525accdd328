--
-- djactor.result(): what a handler returns, made of its parts.
-- Section 2 (handlers).
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- # Each part may be a plain NULL, which RETURN (NULL, NULL) would not know the type of
CREATE FUNCTION result_handle(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
BEGIN
	CASE message #>> '{}'
		WHEN 'neither' THEN RETURN djactor.result(NULL, NULL);
		WHEN 'reply' THEN RETURN djactor.result(NULL, '"replied"');
		WHEN 'state' THEN RETURN djactor.result(state || '"state"', NULL);
		ELSE RETURN djactor.result(reply => message, state => state || message);
	END CASE;
END $$;
SELECT djactor.define_actor_type('result', 'result_handle', initial_state => '[]');
CALL djactor.ask('result', 'k', '"neither"', patience());
CALL djactor.ask('result', 'k', '"reply"', patience());
CALL djactor.ask('result', 'k', '"state"', patience());
CALL djactor.ask('result', 'k', '"both"', patience());
SELECT state, turns FROM djactor.actor WHERE actor_type = 'result';

-- # The same in SQL, whatever the search_path says
CREATE FUNCTION result_sql(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE sql
SET search_path = pg_temp
AS $$ SELECT djactor.result(NULL, message) $$;
SELECT djactor.define_actor_type('result.sql', 'result_sql');
CALL djactor.ask('result.sql', 'k', '1', patience());
SELECT (djactor.result('1', '2')).*, pg_typeof(djactor.result(NULL, NULL));

SELECT djactor.drop_actor_type('result', true), djactor.drop_actor_type('result.sql', true);
DROP FUNCTION result_handle(jsonb, jsonb), result_sql(jsonb, jsonb);
