# trusted = true: the script runs as a superuser for whoever owns the database, who may be hostile. He gets the extension as
# anybody does, and none of what he has prepared runs, is adopted, or is taken for ours (CVE-2022-2625).
#
# Whatever of his is run writes down in public.trophy as whom. No row there may be anybody's but his.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $classes = PostgreSQL::Test::Utils::tempdir();
append_to_file("$classes/classes.py", <<'END');
from djactor_python import cancel_timer, current, reply, send, set_timer

class All:
    def __init__(self, key):
        self.done = False

    def handle_message(self, message):
        if current().kind == "user" and not self.done:
            set_timer("t", 60, every=60)
            cancel_timer("t")
            send("p.p", "other", idempotency_key="once")
            reply({})
            self.done = True
END
my $node = new_server('schema', 'djactor.poll_interval' => '2s', 'djactor_python.path' => $classes);

# A database of mallory's, with traps.
sub hostile_database
{
	my ($database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database OWNER mallory");
	as_role($node, $database, 'mallory', q{
		CREATE TABLE public.trophy (what text, who name DEFAULT current_user, superuser text DEFAULT current_setting('is_superuser'));
		GRANT INSERT ON public.trophy TO PUBLIC;
		CREATE FUNCTION public.grab(what text) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO public.trophy (what) VALUES (what);
			RETURN true;
		END $$;
		CREATE FUNCTION public.grab_row() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM public.grab(TG_TABLE_NAME);
			RETURN NEW;
		END $$});
}

# Tables of our names in schema djactor, each with a trigger.
my $false_schema = q{
	CREATE SCHEMA djactor;
	CREATE FUNCTION djactor.current_trace() RETURNS uuid LANGUAGE sql AS $$SELECT public.grab('current_trace'); SELECT gen_random_uuid()$$;
	CREATE TABLE djactor.actor_type (name text PRIMARY KEY, handler text, owner regrole);
	CREATE TABLE djactor.actor (id bigint, actor_type text, actor_key text, state jsonb, paused boolean, status text);
	CREATE TABLE djactor.actor_identity (id bigint, actor_type text, actor_key text);
	CREATE TABLE djactor.message (id bigint GENERATED ALWAYS AS IDENTITY, actor_type text, actor_key text, payload jsonb, priority smallint,
		deliver_at timestamptz, expires_at timestamptz, trace_id uuid DEFAULT djactor.current_trace());
	CREATE TABLE djactor.dead_letter (id bigint);
	CREATE TABLE djactor.reply (message_id bigint);
	DO $$
	DECLARE
		r regclass;
	BEGIN
		FOR r IN SELECT oid FROM pg_class WHERE relnamespace = 'djactor'::regnamespace AND relkind = 'r' LOOP
			EXECUTE format('CREATE TRIGGER grab BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION public.grab_row()', r);
			EXECUTE format('GRANT ALL ON %s TO PUBLIC', r);
		END LOOP;
	END $$;
	GRANT USAGE ON SCHEMA djactor TO PUBLIC;
	CREATE VIEW djactor.mailbox AS SELECT public.grab('mailbox')};

sub trophies
{
	my ($database) = @_;

	return $node->safe_psql($database, q{SELECT string_agg(DISTINCT what || ' by ' || who, ', ') FROM public.trophy WHERE who <> 'mallory'});
}

# What the script has made, in words that do not depend on OIDs.
sub inventory
{
	my ($database) = @_;

	return $node->safe_psql($database, q{
		SET search_path = pg_catalog;
		SELECT CASE WHEN prokind = 'a' THEN (SELECT format('%s: %s %s', p.oid::regprocedure, aggtransfn, aggfinalfn) FROM pg_aggregate WHERE aggfnoid = p.oid)
			ELSE pg_get_functiondef(oid) END, proacl FROM pg_proc p WHERE pronamespace = 'djactor'::regnamespace ORDER BY 1;
		SELECT attrelid::regclass, attname, atttypid::regtype, attcollation::regcollation, attnotnull, pg_get_expr(adbin, adrelid), attacl
			FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
			WHERE relnamespace = 'djactor'::regnamespace AND attnum > 0 ORDER BY 1, attnum;
		SELECT relname, relkind, relacl, amname, reloptions, pg_get_indexdef(c.oid), pg_get_viewdef(c.oid) FROM pg_class c LEFT JOIN pg_am a ON a.oid = relam
			WHERE relnamespace = 'djactor'::regnamespace ORDER BY 1;
		SELECT tgrelid::regclass, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2});
}

$node->safe_psql('postgres', 'CREATE ROLE mallory LOGIN; CREATE DATABASE plain');
$node->safe_psql('plain', 'CREATE EXTENSION djactor');
my $plain = inventory('plain');

# ---- the script itself ----
my $script = PostgreSQL::Test::Utils::slurp_file("$FindBin::RealBin/../../sql/djactor.sql");
$script =~ s{/\*.*?\*/}{}gs;
unlike($script, qr/OR\s+REPLACE|IF\s+NOT\s+EXISTS/i, 'the script replaces nothing and adopts nothing');
is(join(' ', $script =~ /^CREATE (?:SCHEMA|TABLE|FUNCTION|PROCEDURE|TYPE|VIEW) (?!djactor(?:\.|;))(\S+)/mg), '', '... qualifies what it makes');
is(join(' ', $script =~ /^CREATE (?:INDEX|TRIGGER) \w+ [^;]*?\bON (?!djactor\.)(\S+)/mg), '', '... also below tables');
is($node->safe_psql('plain', q{SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
	WHERE lanname NOT IN ('c', 'internal') OR tgdeferrable}), 0, 'it has no trigger in a language of users, none that is deferred');
is($node->safe_psql('plain', q{SELECT count(*) FROM pg_constraint WHERE connamespace = 'djactor'::regnamespace AND (condeferrable OR contype = 'f')}), 0,
	'... no foreign key, no deferrable constraint');

# ---- a schema djactor that is there already ----
hostile_database('before');
as_role($node, 'before', 'mallory', $false_schema);
for my $role (qw(mallory postgres))
{
	my ($status, undef, $error) = $node->psql('before', 'CREATE EXTENSION djactor', extra_params => [ '-U', $role ]);

	isnt($status, 0, "CREATE EXTENSION by $role where there is a schema djactor: refused");
	like($error, qr/schema "djactor" already exists/, '... the message says why');
}
is($node->safe_psql('before', q{SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'djactor')}), 0,
	'... nothing of it is adopted');
is($node->safe_psql('before', 'SELECT count(*) FROM public.trophy'), 0, '... nor run');
is(trophies('before'), '', '... by a scout neither');

# ---- names and settings of his, while the script runs ----
hostile_database('during');
as_role($node, 'during', 'mallory', q{
	CREATE SCHEMA evil;
	CREATE FUNCTION evil.hijack(a anyelement, b anyelement) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT public.grab('operator')$$;
	CREATE OPERATOR evil.= (FUNCTION = evil.hijack, LEFTARG = anyelement, RIGHTARG = anyelement);
	CREATE OPERATOR evil.<> (FUNCTION = evil.hijack, LEFTARG = anyelement, RIGHTARG = anyelement);
	CREATE FUNCTION evil.hijack_text(a text, b text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT public.grab('operator')$$;
	CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT public.grab('now'); SELECT now()$$;
	CREATE FUNCTION evil.count() RETURNS bigint LANGUAGE sql AS $$SELECT public.grab('count'); SELECT 0::bigint$$;
	CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE sql AS $$SELECT public.grab('quote_ident'); SELECT $1$$;
	CREATE FUNCTION evil.pg_extension_config_dump(text, text) RETURNS text LANGUAGE sql AS $$SELECT public.grab('config_dump'); SELECT ''$$;
	CREATE DOMAIN evil.jsonb AS text CHECK (public.grab('domain'));
	CREATE DOMAIN evil.text AS pg_catalog.text CHECK (public.grab('domain'));
	CREATE DOMAIN evil.regrole AS oid CHECK (public.grab('domain'));
	ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
	ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC;
	ALTER DATABASE during SET search_path = evil, pg_catalog});
as_role($node, 'during', 'mallory', q{
	CREATE DOMAIN pg_temp.jsonb AS pg_catalog.text CHECK (public.grab('temporary domain'));
	CREATE DOMAIN pg_temp.interval AS pg_catalog.text CHECK (public.grab('temporary domain'));
	CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT public.grab('now'); SELECT now()$$;
	SET search_path = evil, pg_temp, pg_catalog;
	SET standard_conforming_strings = off;
	SET quote_all_identifiers = on;
	SET transform_null_equals = on;
	SET intervalstyle = sql_standard;
	SET datestyle = 'German';
	SET check_function_bodies = off;
	SET array_nulls = off;
	SET default_toast_compression = pglz;
	CREATE EXTENSION djactor});
$ENV{PGOPTIONS} = '-c search_path=pg_catalog';	# for our own sessions
is(inventory('during') eq $plain ? 'the same' : inventory('during'), 'the same', 'names, types and settings of his own: the script makes what it always makes');
is($node->safe_psql('during', 'SELECT count(*) FROM public.trophy'), 0, '... and runs nothing of his');
is($node->safe_psql('during', q{SELECT pg_catalog.string_agg(DISTINCT owner::pg_catalog.text, ' ') FROM (
	SELECT relowner::regrole AS owner FROM pg_class WHERE relnamespace = 'djactor'::regnamespace UNION
	SELECT proowner::regrole FROM pg_proc WHERE pronamespace = 'djactor'::regnamespace UNION
	SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'djactor' UNION
	SELECT typowner::regrole FROM pg_type WHERE typnamespace = 'djactor'::regnamespace) o}), 'postgres', '... all of it belongs to the superuser');
as_role($node, 'during', 'mallory', q{
	CREATE FUNCTION public.handle(state pg_catalog.jsonb, message pg_catalog.jsonb) RETURNS pg_catalog.jsonb LANGUAGE sql AS 'SELECT $1';
	SELECT djactor.define_actor_type('m.m', 'public.handle');
	SELECT djactor.send('m.m', 'k')});
ok(wait_drained($node, 'during'), '... and it works');
is($node->safe_psql('during', 'SELECT count(*) FROM public.trophy'), 0, '... without running anything of his');
for my $statement ('ALTER SCHEMA djactor RENAME TO gone', 'DROP SCHEMA djactor CASCADE', 'ALTER EXTENSION djactor SET SCHEMA public')
{
	my ($status) = $node->psql('during', $statement, extra_params => [ '-U', 'mallory' ]);

	isnt($status, 0, "$statement: refused to the owner");
}

delete $ENV{PGOPTIONS};
# ... nor does the superuser who brings Python classes there, with the search_path that the owner has given the database
SKIP:
{
	skip 'no PL/Python here', 3 unless has_extension('plpython3u');

	$node->safe_psql('during', q{
		CREATE EXTENSION plpython3u;
		CREATE EXTENSION djactor_python;
		SELECT djactor.define_python_actor('p.p', 'classes.All')});
	$node->safe_psql('during', q{SELECT djactor.send('p.p', 'k')});
	is($node->safe_psql('during', q{SELECT djactor.wait_idle('1 min', 'p.p')}), 't', 'Python actors of a superuser in such a database');
	is($node->safe_psql('during', q{SELECT pg_catalog.string_agg(state OPERATOR(pg_catalog.->>) 'done', ' ') FROM djactor.actor
		WHERE actor_type OPERATOR(pg_catalog.=) 'p.p'}), 'true true', '... use all of their module');
	is($node->safe_psql('during', q{SELECT pg_catalog.string_agg(what OPERATOR(pg_catalog.||) ' by ' OPERATOR(pg_catalog.||) who, ', ') FROM public.trophy}), '',
		"... and nothing of the owner's is run");
}

# ---- the schema is renamed (by a superuser), and he takes its name ----
hostile_database('after');
as_role($node, 'after', 'mallory', q{
	CREATE EXTENSION djactor;
	CREATE FUNCTION public.handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT $1 || '{"true": 1}'$$;
	SELECT djactor.define_actor_type('m.m', 'public.handle')});
my $super = session($node, 'after');
$super->query(q{SELECT djactor.define_actor_type('s.s', 'public.handle'); SELECT djactor.send('s.s', 'before'); SELECT djactor.wait_idle('1 min')});
$super->query('ALTER SCHEMA djactor RENAME TO moved');
as_role($node, 'after', 'mallory', $false_schema);
$super->query(q{SELECT moved.send('s.s', 'by an old session')});
$node->safe_psql('after', q{SELECT moved.send('s.s', 'by a new session'); SELECT moved.wait_idle('1 min'); SELECT moved.outcome(1), moved.trace(gen_random_uuid());
	SELECT count(*) FROM moved.mailbox; SELECT count(*) FROM moved.worker; SELECT count(*) FROM moved.stat; SELECT moved.reload();
	SELECT moved.define_actor_type('s.t', 'public.handle'); SELECT moved.drop_actor_type('s.t')});
is($node->safe_psql('after', q{SELECT string_agg(actor_key, ', ' ORDER BY id) FROM moved.actor WHERE actor_type = 's.s'}),
	'before, by an old session, by a new session', 'a renamed schema: messages go to our tables');
is($node->safe_psql('after', 'SELECT count(*) FROM djactor.message'), 0, "... none to the false ones that bear its name");
is($node->safe_psql('after', 'SELECT count(*) FROM public.trophy'), 0, '... whose triggers and views nobody has run');
$super->query('DROP SCHEMA djactor CASCADE; ALTER SCHEMA moved RENAME TO djactor');
is($super->query(q{SELECT djactor.send('s.s', 'again') > 0; SELECT djactor.wait_idle('1 min')}), "t\nt", 'named as before: all is as before');
$super->quit;

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$node->stop;
done_testing();
