\set ECHO none
-- obey: a handler for tests of what a turn may do. The payload is a word, or {"n": word, "do": [statement, ...]}: it runs
-- the statements and writes into table told what it was called for: the word, or the kind of message with what matters of
-- its meta. Its state counts its turns.
CREATE TABLE public.told (serial serial PRIMARY KEY, actor_key text, word text, turn int);

CREATE OR REPLACE FUNCTION public.obey(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	m djactor.message := djactor.message();
	turn int := coalesce((state->>'turn')::int, 0) + 1;
	statement text;
BEGIN
	INSERT INTO public.told (actor_key, word, turn) VALUES (m.actor_key, CASE m.kind
		WHEN 'timer' THEN 'timer ' || (m.meta->>'name')
		WHEN 'down' THEN 'down ' || (m.meta->>'actor_key') || ' ' || (m.meta->>'reason')
		WHEN 'error' THEN 'error ' || (m.meta->>'reason')
		WHEN 'reply' THEN 'reply ' || message::text
		ELSE coalesce(message->>'n', message #>> '{}') END, turn);
	IF message ? 'do' THEN
		FOR statement IN SELECT jsonb_array_elements_text(message->'do') LOOP
			EXECUTE statement;
		END LOOP;
	END IF;
	RETURN jsonb_build_object('turn', turn);
END $$;

-- tell(type, key, word, statements): a message for obey().
CREATE OR REPLACE FUNCTION public.tell(type text, key text, word text, VARIADIC statements text[] DEFAULT '{}') RETURNS void
LANGUAGE sql AS $$
	INSERT INTO djactor.message (actor_type, actor_key, payload)
	VALUES (type, key, jsonb_build_object('n', word) ||
		CASE WHEN statements = '{}' THEN '{}' ELSE jsonb_build_object('do', to_jsonb(statements)) END);
$$;

-- heard(): what was told since the last look, in its order within an actor.
CREATE OR REPLACE FUNCTION public.heard() RETURNS TABLE (actor_key text, words text) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT t.actor_key, string_agg(t.turn || ':' || t.word, ', ' ORDER BY t.serial) FROM public.told t GROUP BY 1 ORDER BY 1;
	DELETE FROM public.told;
END $$;
\set ECHO all
