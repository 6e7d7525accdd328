\set ECHO none
SET client_min_messages = warning;
DROP TABLE public.taken;
DROP PROCEDURE public.take_until;
DROP FUNCTION public.put, public.claims, public.token, public.id, public.begin_turn, public.complete, public.fail, public.release, public.actors;
RESET client_min_messages;
\set ECHO all
