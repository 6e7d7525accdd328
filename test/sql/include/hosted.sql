\set ECHO none
-- Words for tests of hosted types: what take() has handed out is found by its payload, a word.
SET client_min_messages = warning;
CREATE TABLE public.taken (serial serial PRIMARY KEY, word text, token bigint, id bigint, claim bigint, actor_key text, state jsonb);

-- put(type, key, word, ...): sends a message.
CREATE FUNCTION public.put(type text, key text, VARIADIC words text[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT type, key, to_jsonb(w) FROM unnest(words) w;
$$;

-- claims(mailboxes, messages): takes, and shows for each mailbox what was handed out: key, state, and the word or the kind of each message.
CREATE FUNCTION public.claims(mailboxes int DEFAULT 100, messages int DEFAULT 10) RETURNS TABLE (actor_key text, state jsonb, words text)
LANGUAGE plpgsql AS $$
DECLARE
	start int := nextval('public.taken_serial_seq');
BEGIN
	INSERT INTO public.taken (word, token, id, claim, actor_key, state)
		SELECT CASE WHEN jsonb_typeof(t.payload) = 'string' THEN t.payload #>> '{}' ELSE t.kind END, t.token, t.id, t.claim, t.actor_key, t.state
		FROM djactor.take(mailboxes, messages) t;
	RETURN QUERY SELECT t.actor_key, (array_agg(t.state ORDER BY serial))[1], string_agg(t.word, ' ' ORDER BY serial)
		FROM public.taken t WHERE serial > start GROUP BY t.claim, t.actor_key ORDER BY 1;
END $$;

-- take_until(word, ...): takes until all these were handed out.
CREATE PROCEDURE public.take_until(VARIADIC words text[]) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz := clock_timestamp();
	got text[] := '{}';
BEGIN
	LOOP
		got := got || (SELECT array_agg(w) FROM claims() c, unnest(string_to_array(c.words, ' ')) w);
		EXIT WHEN words <@ got;
		COMMIT;
		IF clock_timestamp() > started + public.patience() THEN
			RAISE EXCEPTION 'not handed out in time: %', words;
		END IF;
		PERFORM pg_sleep(0.005);
	END LOOP;
END $$;

-- token(word), id(word): of what was handed out last.
CREATE FUNCTION public.token(word text) RETURNS bigint STABLE LANGUAGE sql AS $$
	SELECT token FROM public.taken t WHERE t.word = token.word ORDER BY serial DESC LIMIT 1;
$$;
CREATE FUNCTION public.id(word text) RETURNS bigint STABLE LANGUAGE sql AS $$
	SELECT id FROM public.taken t WHERE t.word = id.word ORDER BY serial DESC LIMIT 1;
$$;
-- begin_turn(word), complete(word, ...), fail(word, sqlstate), release(word, ...): the state that complete() gives is the word.
CREATE FUNCTION public.begin_turn(word text) RETURNS void LANGUAGE sql AS $$ SELECT djactor.begin_turn(token(word), id(word)) $$;
CREATE FUNCTION public.complete(VARIADIC words text[]) RETURNS text[] LANGUAGE sql AS $$
	SELECT djactor.complete(array_agg(token(w) ORDER BY n), array_agg(id(w) ORDER BY n), array_agg(to_jsonb(w) ORDER BY n)) FROM unnest(words) WITH ORDINALITY u (w, n);
$$;
CREATE FUNCTION public.fail(word text, sqlstate text DEFAULT '38000') RETURNS text LANGUAGE sql AS $$
	SELECT djactor.fail(token(word), id(word), sqlstate, 'the host says no', 'line 1');
$$;
CREATE FUNCTION public.release(VARIADIC words text[]) RETURNS int LANGUAGE sql AS $$
	SELECT djactor.release(array_agg(token(w))) FROM unnest(words) w;
$$;
-- actors(type): their states and turns.
CREATE FUNCTION public.actors(type text) RETURNS TABLE (actor_key text, state jsonb, turns bigint) LANGUAGE sql AS $$
	SELECT actor_key, state, turns FROM djactor.actor WHERE actor_type = type ORDER BY 1;
$$;
RESET client_min_messages;
\set ECHO all
