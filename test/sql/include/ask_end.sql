\set ECHO none
DROP VIEW public.answer, public.waiting;
DROP TABLE public.sent;
DROP FUNCTION public.act, public.put, public.id_of, public.handled;
\set ECHO all
