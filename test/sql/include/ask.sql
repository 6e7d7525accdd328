\set ECHO none
-- Words for tests of asks: a handler that does what its message says, and a name for each ask.
SET client_min_messages = warning;

-- act: executes payload.do, a query; its state is a list of what it has seen; payload.reply is its reply.
CREATE FUNCTION public.act(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
DECLARE
	seen text;
BEGIN
	IF message ? 'do' THEN
		EXECUTE message ->> 'do' INTO seen;
	END IF;
	RETURN (public.collect(state, message - 'do' - 'reply' || CASE WHEN seen IS NULL OR seen = '' THEN '{}' ELSE jsonb_build_object('seen', seen) END),
		message -> 'reply');
END $$;

-- put: sends an ask (or what is no ask) and notes its id under a name.
CREATE TABLE public.sent (name text PRIMARY KEY, id bigint);
CREATE FUNCTION public.put(name text, actor_type text, actor_key text, payload jsonb DEFAULT '{}', wants_reply boolean DEFAULT true,
	idempotency_key text DEFAULT NULL, expires_at timestamptz DEFAULT NULL, deliver_at timestamptz DEFAULT NULL, priority int DEFAULT 0)
RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.sent VALUES (name, djactor.send(actor_type, actor_key, payload, wants_reply => wants_reply,
		idempotency_key => idempotency_key, expires_at => expires_at, deliver_at => deliver_at, priority => priority));
$$;
CREATE FUNCTION public.id_of(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT id FROM public.sent WHERE sent.name = id_of.name $$;

-- answer: what has come. waiting: what has not been handled.
CREATE VIEW public.answer AS
	SELECT name, payload, error FROM public.sent JOIN djactor.reply ON message_id = id;
CREATE VIEW public.waiting AS
	SELECT name, aside, attempts FROM public.sent JOIN djactor.message USING (id);
-- handled: what an actor has seen.
CREATE FUNCTION public.handled(actor_type text, actor_key text) RETURNS SETOF jsonb LANGUAGE sql AS $$
	SELECT jsonb_array_elements(state) FROM djactor.actor a WHERE a.actor_type = handled.actor_type AND a.actor_key = handled.actor_key;
$$;
RESET client_min_messages;
\set ECHO all
