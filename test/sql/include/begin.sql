\set ECHO none
-- What all test files begin with: the extension, and a few words to write specifications in.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS djactor;

-- fails(statement): runs it, which must raise an error, and shows SQLSTATE, message, detail, hint.
CREATE OR REPLACE PROCEDURE public.fails(statement text) LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; detail text; hint text;
BEGIN
	BEGIN
		EXECUTE statement;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
			detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		-- The rejected row, as the server shows it, has ids and times in it.
		IF detail LIKE 'Failing row contains%' THEN
			detail := '';
		END IF;
		-- What the server adds when it finds no such function is worded anew in 19.
		IF detail LIKE 'No function of that name%' OR hint LIKE 'No function matches%' THEN
			detail := '';
			hint := '';
		END IF;
		IF detail <> '' AND hint <> '' THEN
			RAISE INFO '%: %', state, message USING DETAIL = detail, HINT = hint;
		ELSIF detail <> '' THEN
			RAISE INFO '%: %', state, message USING DETAIL = detail;
		ELSIF hint <> '' THEN
			RAISE INFO '%: %', state, message USING HINT = hint;
		ELSE
			RAISE INFO '%: %', state, message;
		END IF;
		RETURN;
	END;
	RAISE EXCEPTION 'no error came from: %', statement;
END $$;

-- refused(statement): likewise, for errors whose text differs between server versions: shows SQLSTATE alone.
CREATE OR REPLACE PROCEDURE public.refused(statement text) LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE statement;
	EXCEPTION WHEN OTHERS THEN
		RAISE INFO '%', SQLSTATE;
		RETURN;
	END;
	RAISE EXCEPTION 'no error came from: %', statement;
END $$;

-- Waits are bounded by a minute, or by so many seconds on a server that is slow on purpose.
\set patience 60
\getenv patience DJACTOR_PATIENCE
SET test.patience = :patience;

CREATE OR REPLACE FUNCTION public.patience() RETURNS interval LANGUAGE sql AS $$
	SELECT make_interval(secs => coalesce(nullif(current_setting('test.patience', true), ''), '60')::int)
$$;

-- wait_until(condition): waits until the boolean expression is true, patience() at most.
CREATE OR REPLACE PROCEDURE public.wait_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz := clock_timestamp();
	ok boolean;
BEGIN
	LOOP
		EXECUTE 'SELECT ' || condition INTO ok;
		EXIT WHEN ok;
		IF clock_timestamp() > started + public.patience() THEN
			RAISE EXCEPTION 'did not come true in time: %', condition;
		END IF;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;

-- idle(actor_type): waits until its mail is handled.
CREATE OR REPLACE PROCEDURE public.idle(actor_type text) LANGUAGE plpgsql AS $$
BEGIN
	IF NOT djactor.wait_idle(public.patience(), actor_type) THEN
		RAISE EXCEPTION 'actor type % is not idle in time', actor_type;
	END IF;
END $$;

-- collect: the handler used where it does not matter: its state is the list of payloads.
CREATE OR REPLACE FUNCTION public.collect(state jsonb, message jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
	RETURN CASE WHEN state = '{}' THEN '[]' ELSE state END || jsonb_build_array(message);
END $$;
RESET client_min_messages;
\set ECHO all
