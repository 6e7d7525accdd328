# Contract 24: what a hostile handler may try, in a session that is logged in as the owner of its type and in nobody else's.
#
# mallory may define types and send, nothing else. Her handler runs what the message says. Whatever she gets to run on
# the way writes down in public.trophy as whom it ran: no row there may be anybody but mallory. The other attacks are
# those that would read, change or stop what belongs to others, or spoil the session for the turns that follow.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('turn', 'djactor.poll_interval' => '2s');

new_database($node, 'app', 'app');
$node->safe_psql('app', q{
	CREATE ROLE mallory LOGIN;
	CREATE ROLE pal LOGIN;
	GRANT pal TO mallory;
	CREATE ROLE victim LOGIN;
	GRANT EXECUTE ON FUNCTION djactor.define_actor_type TO mallory;
	GRANT INSERT (actor_type, actor_key, payload, headers, priority, deliver_at, expires_at, trace_id, idempotency_key, wants_reply),
		SELECT (id) ON djactor.message TO mallory, victim;
	CREATE TABLE public.trophy (what text, who name DEFAULT current_user, session name DEFAULT session_user,
		superuser text DEFAULT current_setting('is_superuser'));
	GRANT INSERT ON public.trophy TO PUBLIC;
	CREATE SCHEMA mallory AUTHORIZATION mallory;
	GRANT USAGE ON SCHEMA mallory TO PUBLIC;
	CREATE SCHEMA shared;
	GRANT CREATE, USAGE ON SCHEMA shared TO mallory, victim;
	CREATE SCHEMA victim AUTHORIZATION victim});
as_role($node, 'app', 'mallory', q{
	CREATE FUNCTION mallory.run(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		statement text;
	BEGIN
		FOR statement IN SELECT pg_catalog.jsonb_array_elements_text(message->'do') LOOP
			EXECUTE statement;
		END LOOP;
		RETURN pg_catalog.jsonb_build_object('role', current_user, 'session', session_user,
			'search_path', pg_catalog.current_setting('search_path'));
	END $$;
	SELECT djactor.define_actor_type('mallory.run', 'mallory.run', max_attempts => 1, breaker_failures => NULL);
	CREATE FUNCTION mallory.grab(what text DEFAULT 'grabbed') RETURNS int LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.trophy (what) VALUES (what);
		BEGIN
			EXECUTE 'ALTER ROLE mallory SUPERUSER';
			INSERT INTO public.trophy (what) VALUES (what || ': superuser');
		EXCEPTION WHEN insufficient_privilege THEN NULL;
		END;
		RETURN 1;
	END $$;
	CREATE FUNCTION mallory.grab_row() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM mallory.grab(TG_ARGV[0]);
		RETURN NULL;
	END $$;
	CREATE TABLE mallory.trap (id int);
	CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON mallory.trap DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION mallory.grab_row('deferred');
	CREATE TABLE mallory.trap2 (id int);
	CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON mallory.trap2 DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION mallory.grab_row('both: trigger')});
# victim's actors answer what they are asked, keep a secret, and put a deferred ask where she may try it
$node->safe_psql('app', q{
	GRANT USAGE ON SCHEMA victim TO mallory;
	CREATE FUNCTION victim.keep(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'defer' THEN
			PERFORM djactor.defer_reply();
		ELSIF message ? 'reject' THEN
			PERFORM djactor.reject('no');
		END IF;
		RETURN state || message;
	END $$;
	SELECT djactor.define_actor_type('victim.keep', 'victim.keep', max_attempts => 1, owner => 'victim')});
sub victim_sends
{
	my ($key, $payload, $options) = @_;

	return $node->safe_psql('app', qq{SELECT djactor.send('victim.keep', '$key', '$payload'} . ($options // '') . ')');
}
my $asked = victim_sends('open', '{"defer": true}', ', wants_reply => true');
my $dead = victim_sends('dead', '{"reject": true}');
my $later = victim_sends('later', '{"secret": 2}', q{, deliver_at => now() + interval '1 h'});
victim_sends('vault', '{"secret": 1}');

my $n = 0;
my $app = session($node, 'app');
my $mallory = session($node, 'app', 'mallory');

# Has mallory's handler run these; returns 'handled', or the SQLSTATE that it died of.
sub turn
{
	my @statements = @_;
	my $do = join ', ', map { s/\\/\\\\/gr =~ s/"/\\"/gr =~ s/\n\t*/ /gr =~ s/^(.*)$/"$1"/sr } @statements;
	my $id;

	$n++;
	$id = $mallory->query(qq{SELECT djactor.send('mallory.run', 'k$n', \$json\${"do": [$do]}\$json\$)});
	$app->query(q{SELECT djactor.wait_idle('1 min', 'mallory.run')}) eq 't' or die "no answer to: @statements";
	return $app->query("SELECT coalesce((SELECT sqlstate FROM djactor.dead_letter WHERE id = $id), 'handled')");
}

# What her last turn was, seen from within.
sub seen
{
	my ($what) = @_;

	return $app->query("SELECT state->>'$what' FROM djactor.actor WHERE actor_key = 'k$n'");
}

sub trophies
{
	my ($what) = @_;

	return $app->query("SELECT count(*) FROM public.trophy WHERE what LIKE '$what'");
}

sub refused
{
	my ($name, @statements) = @_;

	is(turn(@statements), '42501', $name);
}

ok(wait_until("victim's actors", sub {
	$app->query(q{SELECT count(*) FROM djactor.actor WHERE actor_type = 'victim.keep'}) eq '2' }), 'there are actors to attack');

# ---- at the commit ----
is(turn('INSERT INTO mallory.trap VALUES (1)'), 'handled', 'deferred trigger: the turn succeeds');
is(trophies('deferred'), 1, '... it has fired');
is(turn(q{DECLARE held CURSOR WITH HOLD FOR SELECT mallory.grab('held cursor')}), 'handled', 'cursor WITH HOLD: the turn succeeds');
is(trophies('held cursor'), 1, '... it was run, at the commit');
isnt(turn('FETCH held'), 'handled', '... and is gone in the next turn');
is(turn(q{DECLARE later CURSOR WITH HOLD FOR SELECT mallory.grab('both: cursor')}, q{INSERT INTO mallory.trap2 VALUES (1)},
	'SET ROLE pal'), 'handled', 'both, while the turn ends as another role that she may be');
is(trophies('both%'), 2, '... they were run');
is($app->query(q{DELETE FROM public.trophy WHERE what LIKE 'both%' AND who IN ('mallory', 'pal') AND session = 'mallory' AND superuser = 'off';
	SELECT count(*) FROM public.trophy WHERE what LIKE 'both%'}), 0, '... by mallory, or by that role');

# ---- becoming somebody else ----
for my $role (qw(victim app postgres pg_read_all_data pg_execute_server_program pg_database_owner))
{
	refused("SET ROLE $role", "SET ROLE $role");
	refused("SET SESSION AUTHORIZATION $role", "SET SESSION AUTHORIZATION $role");
	refused("set_config('role', '$role')", "SELECT set_config('role', '$role', false)");
}
for my $statement ('RESET ROLE', 'SET ROLE NONE', 'RESET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION DEFAULT')
{
	is(turn($statement, q{SELECT mallory.grab('reset')}), 'handled', "$statement: allowed");
	is(seen('session'), 'mallory', '... and leads back to mallory');
}
is(turn('SET ROLE pal', q{INSERT INTO trophy VALUES ('pal', 'mallory')}), 'handled', 'SET ROLE, to a role that she may be');
is(seen('role'), 'pal', '... works within the turn');
is(turn('SELECT 1'), 'handled', '... and the next turn');
is(seen('role'), 'mallory', '... is mallory again');
refused('ALTER ROLE ... SUPERUSER', 'ALTER ROLE mallory SUPERUSER');
refused('session_replication_role', 'SET session_replication_role = replica');
refused('COPY ... PROGRAM', q{COPY mallory.trap FROM PROGRAM 'true'});
refused("a setting of djactor's", q{SELECT set_config('djactor_python.path', '/tmp', false)});

# ---- what a turn leaves to the next one ----
my @leave = (
	[ 'search_path', q{SET search_path = shared, pg_catalog} ],
	[ 'a read-only transaction', 'SET TRANSACTION READ ONLY' ],
	[ 'read-only transactions', 'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY' ],
	[ 'serializable transactions', 'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE' ],
	[ 'a lock timeout', q{SET lock_timeout = '1ms'} ],
	[ 'a prepared statement', 'PREPARE p AS SELECT 1' ],
	[ 'an advisory lock', 'SELECT pg_advisory_lock(1)' ],
	[ 'immediate constraints', 'SET CONSTRAINTS ALL IMMEDIATE' ]);
my $path = $app->query(q{SELECT state->>'search_path' FROM djactor.actor WHERE actor_key = 'k1'});
for my $case (@leave)
{
	my ($name, $statement) = @$case;

	is(turn($statement), 'handled', "a turn leaves $name");
	is(turn('INSERT INTO mallory.trap VALUES (2)'), 'handled', '... the next one can write');
	is(seen('search_path'), $path, '... with the settings of the role');
}
is($app->query(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), 0, 'the advisory lock is gone');
for my $statement ('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE', 'COMMIT', 'DO $$BEGIN COMMIT; END$$', 'LISTEN djactor',
	'ALTER SYSTEM SET work_mem = 1000')
{
	isnt(turn($statement), 'handled', "$statement: refused");
}

# the settings that she may give her own role: of them the turns have what is for handlers, and not what is for the bookkeeping
for my $setting ("role = 'pal'", 'default_transaction_read_only = on', 'default_transaction_deferrable = on',
	"default_transaction_isolation = 'serializable'", "lock_timeout = '1ms'", "statement_timeout = '1ms'")
{
	as_role($node, 'app', 'mallory', "ALTER ROLE mallory SET $setting; SELECT djactor.reload()");
	is(turn('INSERT INTO mallory.trap VALUES (3)', 'SELECT pg_sleep(0.01)',
		q{DO $$BEGIN ASSERT current_setting('transaction_isolation') = 'read committed'; END$$}), 'handled', "ALTER ROLE mallory SET $setting, a new session");
	is(seen('role') . ' ' . seen('session'), 'mallory mallory', '... is mallory');
	$node->safe_psql('postgres', 'ALTER ROLE mallory RESET ALL');
}
as_role($node, 'app', 'mallory', 'SELECT djactor.reload()');

# ---- names that stand in for the server's own ----
as_role($node, 'app', 'mallory', q{
	CREATE FUNCTION mallory.hijack(a anyelement, b anyelement) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM mallory.grab('hijack: operator');
		RETURN true;
	END $$;
	CREATE OPERATOR mallory.= (FUNCTION = mallory.hijack, LEFTARG = anyelement, RIGHTARG = anyelement);
	CREATE OPERATOR mallory.<> (FUNCTION = mallory.hijack, LEFTARG = anyelement, RIGHTARG = anyelement);
	CREATE OPERATOR mallory.> (FUNCTION = mallory.hijack, LEFTARG = anyelement, RIGHTARG = anyelement);
	CREATE FUNCTION mallory.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT mallory.grab('hijack: now'); SELECT 'infinity'::timestamptz$$;
	CREATE FUNCTION mallory.count(text) RETURNS bigint LANGUAGE sql AS $$SELECT mallory.grab('hijack: count'); SELECT 0::bigint$$;
	CREATE DOMAIN mallory.jsonb AS text;
	CREATE DOMAIN mallory.text AS pg_catalog.text;
	CREATE TABLE mallory.message (id int);
	CREATE TABLE mallory.actor (id int)});
my $hostile = 'SET search_path = mallory, pg_catalog';
is(turn($hostile, q{SELECT djactor.send('mallory.run', 'sent', '{"do": []}', deliver_at => pg_catalog.now())},
	q{SELECT djactor.set_timer('t', '1 ms', '{"do": []}')}, q{SELECT djactor.watch('mallory.run', 'nobody')}), 'handled', 'search_path with operators, functions and types of hers: a turn that uses all of djactor');
is(turn($hostile, q{SELECT 1/0}), '22012', '... and one that fails');
as_role($node, 'app', 'mallory', q{ALTER ROLE mallory SET search_path = mallory, pg_catalog; SELECT djactor.reload()});
is(turn('SELECT 1'), 'handled', '... also as the setting of her role, in a new session');
is(turn(q{SELECT djactor.stop()}), 'handled', '... an actor of hers stops');
as_role($node, 'app', 'mallory', q{ALTER ROLE mallory RESET search_path; SELECT djactor.reload()});
my $temp = q{CREATE DOMAIN pg_temp.jsonb AS pg_catalog.text CHECK (mallory.grab('hijack: domain') > 0)};
my @temporary = ($temp, q{CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (mallory.grab('hijack: domain') > 0)},
	q{CREATE FUNCTION pg_temp.hijack(pg_catalog.text) RETURNS pg_temp.jsonb LANGUAGE sql AS $$SELECT mallory.grab('hijack: cast'); SELECT $1$$},
	q{CREATE CAST (pg_temp.text AS pg_catalog.jsonb) WITH INOUT AS IMPLICIT},
	'CREATE TEMP TABLE message (id int)', 'CREATE TEMP TABLE actor (id int)');
is(turn(@temporary, q{SELECT djactor.send('mallory.run', 'temporary', '{"do": []}')}), 'handled',
	'types, functions, casts and tables in pg_temp: a turn that sends');
is(turn(q{SELECT djactor.send('mallory.run', 'plan', '{"do": []}')}), 'handled', 'a saved plan of send()');
$app->query('GRANT SELECT ON djactor.message TO app; REVOKE SELECT ON djactor.message FROM app');	# invalidates it
is(turn(@temporary, q{SELECT djactor.send('mallory.run', 'plan', '{"do": []}')}), 'handled', '... analysed again among such types');
ok(wait_until('her mail is handled', sub {
	$app->query(q{SELECT count(*) FROM djactor.message WHERE actor_type = 'mallory.run'}) eq '0' }), 'all that was sent so is handled');
is($app->query(q{SELECT count(*) FROM djactor.actor WHERE actor_key IN ('sent', 'temporary', 'plan')}), 3, '... by the actors that it was for');
is(trophies('hijack%'), 0, 'nothing of djactor has used any of those names');
# the same names in a superuser's path, and all that he may call
$node->safe_psql('app', qq{
	$hostile;
	SELECT pg_catalog.count(*) FROM djactor.mailbox; SELECT pg_catalog.count(*) FROM djactor.worker; SELECT pg_catalog.count(*) FROM djactor.stat;
	SELECT djactor.outcome(id), (djactor.trace(trace_id)).status FROM djactor.message;
	SELECT djactor.define_actor_type('by.superuser', 'victim.keep'); SELECT djactor.pause('by.superuser'); SELECT djactor.resume('by.superuser');
	SELECT djactor.send('by.superuser', 'k', idempotency_key => 'i'); SELECT djactor.drain(until => pg_catalog.now());
	SELECT djactor.wait_idle('1 min', 'by.superuser'); SELECT djactor.drop_actor_type('by.superuser', true)});
is(trophies('hijack%'), 0, "... neither in a superuser's session");

# ---- others' messages, states and turns ----
for my $table (qw(actor message actor_type dead_letter reply timer watch idempotency journal home mailbox worker stat actor_identity))
{
	refused("reading djactor.$table", "SELECT * FROM djactor.$table");
}
refused('UPDATE of attempts', 'UPDATE djactor.message SET attempts = 0');
refused('DELETE of mail', 'DELETE FROM djactor.message');
refused('UPDATE of a state', q{UPDATE djactor.actor SET state = '{}'});
refused("an answer to another's ask", "SELECT djactor.reply('1', $asked)");
refused("an error to another's ask", "SELECT djactor.reply_error('1', $asked)");
refused("cancel() of another's message", "SELECT djactor.cancel($later)");
refused("redrive() of another's dead letter", "SELECT djactor.redrive($dead)");
refused("discard() of another's dead letter", "SELECT djactor.discard($dead)");
refused("pause() of another's type", q{SELECT djactor.pause('victim.keep')});
refused("pause() of another's actor", q{SELECT djactor.pause('victim.keep', 'vault')});
refused("resume() of another's actor", q{SELECT djactor.resume('victim.keep', 'vault')});
refused("stop_actor() of another's actor", q{SELECT djactor.stop_actor('victim.keep', 'vault')});
refused("drop_actor_type() of another's type", q{SELECT djactor.drop_actor_type('victim.keep')});
refused('resume() of the database', 'SELECT djactor.resume()');
refused("watch() of another's actor", q{SELECT djactor.watch('victim.keep', 'vault')});
refused('... that does not exist: she does not learn that', q{SELECT djactor.watch('victim.keep', 'nobody')});
for my $process ("backend_type = 'djactor worker' AND usename = 'victim'", "backend_type = 'djactor launcher'")
{
	my $pid = $app->query("SELECT pid FROM pg_stat_activity WHERE $process");

	refused("killing the process with $process", "SELECT pg_terminate_backend($pid)");
}
is(turn(q{SELECT djactor.reload()}), 'handled', "reload() ends her own workers only");
is(turn(q{SELECT djactor.watch('mallory.run', 'k1')}), 'handled', 'watch() of an actor of her own');
is($app->query("SELECT aside FROM djactor.message WHERE id = $asked"), 'deferred', "victim's ask is still open");
is($app->query("SELECT count(*) FROM djactor.message WHERE id = $later"), 1, '... and its message still there');
is($app->query(q{SELECT state->>'secret' FROM djactor.actor WHERE actor_key = 'vault'}), 1, '... and its state');

# ---- a handler's name, taken over ----
$node->safe_psql('app', q{
	SET ROLE victim;
	CREATE FUNCTION shared.handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
	RESET ROLE;
	SELECT djactor.define_actor_type('victim.shared', 'shared.handle', owner => 'victim');
	SET ROLE victim;
	DROP FUNCTION shared.handle;
	SET ROLE mallory;
	CREATE FUNCTION shared.handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
		$$BEGIN PERFORM mallory.grab('taken over'); RETURN state; END$$;
	RESET ROLE;
	SELECT djactor.send('victim.shared', 'k')});
ok(wait_until('the problem', sub { $app->query(q{SELECT problem FROM djactor.actor_type WHERE name = 'victim.shared'}) =~
	/belongs to role "mallory"/ }), "a handler's name taken over by another role: mail waits, and actor_type.problem says why");
is(trophies('taken over'), 0, '... it was not called');

is($app->query(q{SELECT DISTINCT who, session, superuser FROM public.trophy}), 'mallory|mallory|off',
	'whatever she got to run, it ran as mallory');
is($app->query(q{SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper}), 0, '... who is no superuser');
is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$node->stop;
done_testing();
