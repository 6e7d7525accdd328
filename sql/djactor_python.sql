/*
 * djactor_python.sql
 *
 * Actors written as plain Python classes.  The Python module
 * djactor_python.py in the server's share directory does the work.  This
 * script creates the entry points: one handler for all types, one function
 * that defines types, and one table with the class of each type.
 *
 * These rules hold throughout:
 *
 * - a class runs as the server's operating system user, so only a superuser
 *   may define types or write the table;
 * - a definition is valid for one owner: a role that may call the handler for
 *   its own types cannot make another owner's class run under its type;
 * - every name is qualified, nothing is CREATE OR REPLACE or IF NOT EXISTS.
 *   No function has a SET clause: it would change what users' code sees.
 */

\echo Use "CREATE EXTENSION djactor_python" to load this file. \quit

CREATE TABLE djactor.python_actor
(
	name text COLLATE pg_catalog."C" NOT NULL PRIMARY KEY,
	class text NOT NULL,
	owner pg_catalog.regrole NOT NULL
);
COMMENT ON TABLE djactor.python_actor IS 'actor types whose handler is a Python class; written only by define_python_actor()';
COMMENT ON COLUMN djactor.python_actor.name IS 'kind of actor: djactor.actor_type.name';
COMMENT ON COLUMN djactor.python_actor.class IS 'package.module.Class';
COMMENT ON COLUMN djactor.python_actor.owner IS 'owner of the type that the class was defined for';

CREATE FUNCTION djactor.python_directory() RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'dja_python_directory';
COMMENT ON FUNCTION djactor.python_directory() IS 'directory in which the Python module djactor_python is installed';

CREATE FUNCTION djactor.handle_python(state jsonb, message jsonb) RETURNS djactor.result
	LANGUAGE plpython3u VOLATILE AS $$
	try:
		handle = SD["handle"]
	except KeyError:
		import sys
		directory = plpy.execute("SELECT djactor.python_directory() AS directory")[0]["directory"]
		if directory not in sys.path:
			sys.path.append(directory)
		from djactor_python import handle
		SD["handle"] = handle
	result = handle(state, message)
	if isinstance(result, BaseException):
		raise result
	return result
$$;
COMMENT ON FUNCTION djactor.handle_python(jsonb, jsonb) IS
'handler of all Python actors: runs handle_message() of the class that the type was defined with';

CREATE FUNCTION djactor.define_python_actor
(
	name text,
	class text,
	initial_state jsonb DEFAULT '{}'::pg_catalog.jsonb,
	state_version int DEFAULT 1,
	upgrade_handler text DEFAULT NULL,
	max_attempts int DEFAULT 5,
	backoff interval DEFAULT '1 s'::interval,
	backoff_max interval DEFAULT '1 h'::interval,
	retry_order text DEFAULT 'hold'::text,
	on_exhausted text DEFAULT 'dead_letter'::text,
	handler_timeout interval DEFAULT '30 s'::interval,
	batch_size int DEFAULT NULL,
	concurrency int DEFAULT NULL,
	mailbox_limit int DEFAULT NULL,
	on_full text DEFAULT 'raise'::text,
	breaker_failures int DEFAULT 100,
	breaker_window interval DEFAULT '1 min'::interval,
	journal interval DEFAULT NULL,
	owner pg_catalog.regrole DEFAULT (pg_catalog.quote_ident(CURRENT_USER::text))::pg_catalog.regrole,
	settings jsonb DEFAULT NULL,
	idle_ttl interval DEFAULT NULL,
	wait_target interval DEFAULT NULL
) RETURNS void
	LANGUAGE plpython3u VOLATILE AS $$
	import sys
	directory = plpy.execute("SELECT djactor.python_directory() AS directory")[0]["directory"]
	if directory not in sys.path:
		sys.path.append(directory)
	from djactor_python import define
	result = define(args)
	if isinstance(result, BaseException):
		raise result
$$;
COMMENT ON FUNCTION djactor.define_python_actor(text, text, jsonb, int, text, int, interval, interval, text, text, interval, int, int, int, text, int, interval, interval, regrole, jsonb, interval, interval) IS
'defines a kind of actor whose handler is a Python class, or changes it; options as for define_actor_type()';

GRANT SELECT ON djactor.python_actor TO pg_database_owner;
REVOKE ALL ON FUNCTION djactor.python_directory() FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.handle_python(jsonb, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION djactor.define_python_actor(text, text, jsonb, int, text, int, interval, interval, text, text, interval, int, int, int, text, int, interval, interval, regrole, jsonb, interval, interval) FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('djactor.python_actor', '');
