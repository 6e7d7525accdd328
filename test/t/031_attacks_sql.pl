# Contract 24, from outside of turns: what roles without the right may try in SQL.
#
# mallory may send and define types of her own; stranger may only connect; maker may create databases; owner owns the
# database and the extension. A handler of victim's runs all the while: nobody of these stops it, keeps others
# waiting, or reads, forges or changes what is not his.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('sql', 'djactor.poll_interval' => '1h', max_prepared_transactions => 5);
my @granted = qw(actor_type actor_key payload headers priority deliver_at expires_at trace_id idempotency_key wants_reply);

new_app($node, 'app', 'owner');
$node->safe_psql('app', q{
	CREATE ROLE mallory LOGIN;
	CREATE ROLE stranger LOGIN;
	CREATE ROLE maker LOGIN CREATEDB;
	CREATE ROLE victim LOGIN;
	CREATE ROLE nologin;
	CREATE SCHEMA mallory AUTHORIZATION mallory;
	GRANT EXECUTE ON FUNCTION djactor.define_actor_type TO mallory;
	GRANT INSERT (} . join(', ', @granted) . q{), SELECT (id) ON djactor.message TO mallory;
	GRANT ALL ON ledger, ledger_serial_seq TO victim;
	GRANT SELECT ON djactor.message TO victim;
	SELECT djactor.define_actor_type('victim.work', 'public.work', owner => 'victim', handler_timeout => '0', max_attempts => 1);
	SELECT djactor.define_actor_type('victim.gone', 'public.work', owner => 'victim', max_attempts => 1)});
as_role($node, 'app', 'mallory', q{
	CREATE FUNCTION mallory.handle(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1 || $2';
	CREATE TABLE mallory.t (id bigint);
	SELECT djactor.define_actor_type('mallory.mine', 'mallory.handle')});
my $super = session($node, 'app');
my %session = map { $_ => session($node, 'app', $_) } qw(mallory stranger owner);
$_->query(q{SET lock_timeout = '10s'}) for values %session;	# who is refused has not waited for a lock before

# refused($name, $role, $sqlstate, $statement): what a role is told, in its own session.
sub refused
{
	my ($name, $role, $sqlstate, $statement) = @_;
	my $session = $session{$role};

	$session->start("\\set VERBOSITY sqlstate\n$statement");
	$session->finish;
	my ($got) = $session->{err} =~ /ERROR:\s+(\w+)/;
	is($got // 'done', $sqlstate, "$role: $name");
	$session->query('ROLLBACK');
}

sub count
{
	my ($from) = @_;

	return $super->query("SELECT count(*) FROM $from");
}

# ---- victim's handler runs; its dead letter, its message that waits ----
$super->query(q{SELECT djactor.send('victim.gone', 'd', '{"fail": 1, "secret": 1}'); SELECT djactor.wait_idle('1 min', 'victim.gone')});
my $dead = $super->query('SELECT max(id) FROM djactor.dead_letter');
my $waiting = $super->query(q{SELECT djactor.send('victim.work', 'later', deliver_at => now() + interval '1 h')});
my $asked = $super->query(q{SELECT djactor.send('victim.work', 'asked', wants_reply => true)});
$super->query(q{SELECT djactor.wait_idle('1 min', 'victim.work'); SELECT djactor.send('victim.work', 'long', '{"sleep": 300}')});
ok(wait_until('the long handler', sub { count(q{djactor.worker WHERE actor_type = 'victim.work'}) }), "victim's handler runs");
my $long = $super->query(q{SELECT message_id FROM djactor.worker WHERE actor_type = 'victim.work'});
my $pid = $super->query(q{SELECT pid FROM djactor.worker WHERE actor_type = 'victim.work'});

# ---- forging ----
my @columns = split /\n/, $super->query(q{SELECT attname FROM pg_attribute
	WHERE attrelid = 'djactor.message'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum});
for my $column (grep { my $c = $_; !grep { $_ eq $c } @granted } @columns)
{
	refused("forged column $column", 'mallory', $column eq 'id' ? '428C9' : '42501', "INSERT INTO djactor.message (actor_type, actor_key, $column) VALUES ('mallory.mine', 'k', NULL)");
	refused("... by COPY", 'mallory', '42501', "COPY djactor.message (actor_type, actor_key, $column) FROM '/dev/null'");
}
for my $role (qw(mallory owner))
{
	refused('OVERRIDING SYSTEM VALUE', $role, '42501',
		q{INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING SYSTEM VALUE VALUES (1, 'mallory.mine', 'k')});
	refused('OVERRIDING USER VALUE', $role, '42501',
		q{INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING USER VALUE VALUES (1, 'mallory.mine', 'k')});
	refused('the sequence of ids', $role, '42501', q{SELECT setval('djactor.message_id_seq', 1)});
	refused('UPDATE of attempts', $role, '42501', 'UPDATE djactor.message SET attempts = 0');
	refused('INSERT ... ON CONFLICT DO UPDATE', $role, '42501',
		q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('mallory.mine', 'k') ON CONFLICT (id) DO UPDATE SET attempts = 0});
	refused('MERGE', $role, '42501',
		q{MERGE INTO djactor.message m USING (VALUES (1)) v (id) ON m.id = v.id WHEN MATCHED THEN UPDATE SET attempts = 0});
	refused("DELETE of mail", $role, '42501', 'DELETE FROM djactor.message');
	refused('TRUNCATE', $role, '42501', 'TRUNCATE djactor.message');
	refused("rows of others' bookkeeping", $role, '42501', q{INSERT INTO djactor.reply (message_id, payload, created_at, expires_at) VALUES (1, '1', now(), now())});
	refused('an actor made by hand', $role, '42501', q{INSERT INTO djactor.actor (id, actor_type, actor_key, state, created_at, updated_at) VALUES (1, 'mallory.mine', 'k', '{}', now(), now())});
	refused('a type made by hand', $role, '42501', q{INSERT INTO djactor.actor_type (name) VALUES ('x')});
	refused('a home made by hand', $role, '42501', 'INSERT INTO djactor.home VALUES (0, 0, $$$$, 0)');
}
# ... and the superuser is told what to use instead
for my $statement ('UPDATE djactor.message SET attempts = 0', 'DELETE FROM djactor.actor', 'UPDATE djactor.reply SET payload = $$1$$', 'DELETE FROM djactor.actor_type')
{
	my (undef, undef, $error) = $node->psql('app', $statement);

	like($error, qr/cannot be changed this way.*HINT/s, "superuser: $statement: refused with a hint");
}
# what she may send says nothing that is not true of her
$session{mallory}->query(q{INSERT INTO djactor.message (actor_type, actor_key, headers, trace_id) VALUES ('mallory.mine', 'k', '{"user": "root"}', gen_random_uuid())});
is($super->query(q{SELECT djactor.wait_idle('1 min', 'mallory.mine')}), 't', 'what she may send is handled');

# ---- reading ----
my @relations = split /\n/, $super->query(q{SELECT relname FROM pg_class WHERE relnamespace = 'djactor'::regnamespace AND relkind IN ('r', 'v', 'S') ORDER BY 1});
cmp_ok(scalar @relations, '>=', 16, 'there are tables and views to read');
for my $relation (@relations)
{
	refused("reading djactor.$relation", 'stranger', '42501', "SELECT * FROM djactor.$relation");
	refused("reading djactor.$relation", 'mallory', '42501', "SELECT * FROM djactor.$relation");
}
refused('... or one column that she may not', 'mallory', '42501', 'SELECT payload FROM djactor.message');
refused('... or what she has just sent', 'mallory', '42501', q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('mallory.mine', 'k') RETURNING sent_at});
refused("a reply to another's ask", 'mallory', '42501', "SELECT djactor.wait_reply($asked)");
refused("... and to many", 'mallory', '42501', "SELECT djactor.wait_replies('{$asked}')");
refused("outcome() of another's message", 'mallory', '42501', "SELECT djactor.outcome($dead)");
refused('trace()', 'mallory', '42501', 'SELECT djactor.trace(gen_random_uuid())');
refused('stat_list()', 'mallory', '42501', 'SELECT djactor.stat_list()');
refused('stat_times_list()', 'mallory', '42501', 'SELECT djactor.stat_times_list()');
refused('worker_list()', 'mallory', '42501', 'SELECT djactor.worker_list()');
refused('progress_list()', 'mallory', '42501', 'SELECT djactor.progress_list()');
refused('put_off_list()', 'mallory', '42501', 'SELECT djactor.put_off_list()');
is($session{mallory}->query(q{SELECT djactor.message() IS NULL AND (djactor.self()).actor_key IS NULL AND djactor.current_headers() IS NULL}), 't',
	'message() and self() outside a turn tell nothing');

# ---- functions that everybody may call: each of them was looked at, and is attacked here or in 031_attacks_turn ----
is($super->query(q{SELECT string_agg(DISTINCT proname, ' ' ORDER BY proname) FROM pg_proc p
	WHERE pronamespace = 'djactor'::regnamespace AND has_function_privilege('stranger', p.oid, 'EXECUTE')}),
	'ask begin_turn cancel cancel_timer complete cron_next current_cause current_headers current_sender_key current_sender_type current_trace defer_reply discard drain drain_take'
	. ' drop_actor_type end_turn erase every_next fail heartbeat'
	. ' held host_close host_crashed host_drain host_open mailbox_position message name_hash next_turn now outcome pause progress progress_of redrive reject release reload reply reply_error result resume run_now'
	. ' schedule self send set_timer stash stat_percentile stop stop_actor take timer_next trace unschedule unstash_all unwatch wait_idle wait_replies wait_reply waited_for watch', 'no other function is open to everybody');
is($super->query(q{SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'djactor'::regnamespace AND prosecdef}), '',
	'no function runs as its owner');
is($super->query(q{SELECT count(*) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE pronamespace = 'djactor'::regnamespace AND NOT
	(lanname = 'c' OR prokind = 'a' OR (lanname = 'sql' AND prosqlbody IS NOT NULL AND proconfig::text ~ 'search_path=pg_catalog, pg_temp'))}), 0,
	'every function is in C, or SQL that is bound to our tables, with a search_path of its own');
for my $function (qw(message_sent message_arrived home_changed refuse_write))
{
	refused("$function() called by hand", 'mallory', '42501', "SELECT djactor.$function()");
	refused("$function() as a trigger of her own table", 'mallory', '42501',
		"CREATE TRIGGER t AFTER INSERT ON mallory.t FOR EACH ROW EXECUTE FUNCTION djactor.$function()");
}

# ---- what belongs to others ----
refused("cancel() of another's message", 'mallory', '42501', "SELECT djactor.cancel($waiting)");
refused("... that is being handled", 'mallory', '42501', "SELECT djactor.cancel($long, true)");
refused("progress_of() another's turn", 'mallory', '42501', "SELECT djactor.progress_of($long)");
is($session{mallory}->query("SELECT djactor.progress(1, $long, '1')"), 'f', 'mallory: says nothing of a turn that she has no token of');
refused("... with running", 'mallory', '42501', "SELECT djactor.cancel($waiting, true)");
refused("redrive() of another's dead letter", 'mallory', '42501', "SELECT djactor.redrive($dead)");
refused("... with a payload of hers", 'mallory', '42501', "SELECT djactor.redrive($dead, '{}')");
refused("discard() of another's dead letter", 'mallory', '42501', "SELECT djactor.discard($dead)");
for my $call (q{pause('victim.work')}, q{resume('victim.work')}, q{pause('victim.work', 'asked')}, q{resume('victim.work', 'asked')},
	q{schedule('victim.work', 'asked', 't', cron => '@daily')}, q{unschedule('victim.work', 'asked', 't')}, q{run_now('victim.work', 'asked', 't')},
	q{pause('victim.work', 'asked', 't')}, q{resume('victim.work', 'asked', 't')}, q{timer_next('victim.work', 'asked', 't')},
	q{stop_actor('victim.work', 'asked')}, q{erase('victim.work', 'asked')}, q{drop_actor_type('victim.work')}, q{drop_actor_type('victim.work', true)}, 'resume()')
{
	refused($call, 'mallory', '42501', "SELECT djactor.$call");
}
for my $call ('reply(NULL)', q{progress('1')}, 'reply_error(NULL)', 'defer_reply()', q{reject('x')}, 'stop()', 'stash()', 'unstash_all()', q{set_timer('t')},
	q{cancel_timer('t')}, q{watch('victim.work', 'asked')}, q{unwatch('victim.work', 'asked')})
{
	refused("$call outside a turn", 'mallory', '55000', "SELECT djactor.$call");
}
is($session{mallory}->query('SELECT djactor.drain()'), '0', 'mallory: drain() handles only types of her own');
my $others = q{SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM djactor.worker WHERE resident AND role::text <> 'mallory'};
my $before = $super->query($others);
$session{mallory}->query('SELECT djactor.reload()');
sleep 0.5;
isnt($before, '', 'there are workers of others');
is($super->query($others), $before, 'mallory: reload() ends no worker but her own');
$super->query(q{CREATE FUNCTION public.as_owner() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT djactor.drain()'});
refused('drain() in somebody else\'s name', 'mallory', '42501', 'SELECT public.as_owner()');

# ---- hosts ----
$super->query(q{SELECT djactor.define_actor_type('victim.hosted', NULL, hosted => true, owner => 'victim'); SELECT djactor.send('victim.hosted', 'k')});
my $host = session($node, 'app', 'victim');
my $id = $host->query(q{SELECT djactor.host_open('{victim.hosted}')});
my $turn = '';
wait_until('mail', sub { $turn = $host->query('SELECT token FROM djactor.take(1)') });
my $hosted = $super->query(q{SELECT id FROM djactor.message WHERE actor_type = 'victim.hosted'});
refused("host_open() of another's type", 'mallory', '42501', q{SELECT djactor.host_open('{victim.hosted}')});
refused('take() without being a host', 'mallory', '55000', 'SELECT djactor.take(1)');
refused('host_close() without being a host', 'mallory', '55000', 'SELECT djactor.host_close()');
refused("begin_turn() with another's token", 'mallory', '40001', "BEGIN; SELECT djactor.begin_turn($turn, $hosted)");
refused('end_turn() without a turn', 'mallory', '55000', 'CALL djactor.end_turn()');
is($session{mallory}->query("SELECT djactor.complete('{$turn}', '{$hosted}', '{NULL}')"), '{stale}', "mallory: complete() with another's token");
is($session{mallory}->query("SELECT djactor.fail($turn, $hosted, '38000', 'x')"), 'stale', '... fail()');
is($session{mallory}->query("SELECT djactor.release('{$turn}')"), '0', '... release()');
is($session{mallory}->query("SELECT djactor.heartbeat($id), djactor.host_drain($id), djactor.host_crashed($id, '{$hosted}')"), 'f|f|f',
	"... and what concerns another's host");
is($session{mallory}->query('SELECT count(*) FROM djactor.drain_take()'), '0', '... drain_take() hands out only mail of her own types');
is($host->query("SELECT djactor.complete('{$turn}', '{$hosted}', '{NULL}')"), '{done}', "the victim's turn was not touched");
refused('host_list()', 'mallory', '42501', 'SELECT djactor.host_list()');
refused('hosted_state()', 'mallory', '42501', 'SELECT djactor.hosted_state(1)');

# ---- defining ----
refused('define_actor_type() without the right', 'stranger', '42501', q{SELECT djactor.define_actor_type('x', 'public.work')});
for my $role (qw(victim owner postgres))
{
	refused("a type that $role would own", 'mallory', '42501', "SELECT djactor.define_actor_type('mallory.x', 'mallory.handle', owner => '$role')");
}
for my $role (qw(nologin pg_database_owner pg_read_all_data pg_execute_server_program))
{
	my ($status) = $node->psql('app', "SELECT djactor.define_actor_type('x', 'public.work', owner => '$role')");

	isnt($status, 0, "superuser: a type that $role would own: refused, nobody can log in as that");
}
refused("another's type", 'mallory', '42501', q{SELECT djactor.define_actor_type('victim.work', 'mallory.handle')});
$super->query(q{REVOKE EXECUTE ON FUNCTION public.work FROM PUBLIC; GRANT EXECUTE ON FUNCTION public.work TO victim});
refused('a handler that she may not execute', 'mallory', '42501', q{SELECT djactor.define_actor_type('mallory.x', 'public.work')});
refused('an upgrade handler of another role', 'mallory', '42501',
	q{SELECT djactor.define_actor_type('mallory.x', 'mallory.handle', upgrade_handler => 'public.work')})
  if $super->query(q{CREATE FUNCTION public.work(jsonb, int) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'; REVOKE EXECUTE ON FUNCTION public.work(jsonb, int) FROM PUBLIC}) eq '';
# the name of a type that is gone, and with it what it has left
$super->query(q{SELECT djactor.drop_actor_type('victim.gone', true)});
refused("the name of another's former type", 'mallory', '42501', q{SELECT djactor.define_actor_type('victim.gone', 'mallory.handle')});
refused('... whose dead letters she would get so', 'mallory', '42501', "SELECT djactor.redrive($dead)");
is(count("djactor.dead_letter WHERE id = $dead"), 1, '... which are still there');

# ---- the extension's objects ----
for my $role (qw(mallory owner))
{
	for my $statement ('CREATE TRIGGER t AFTER INSERT ON djactor.message EXECUTE FUNCTION suppress_redundant_updates_trigger()',
		'CREATE RULE r AS ON INSERT TO djactor.message DO ALSO NOTIFY x', 'CREATE INDEX ON djactor.message (payload)',
		'CREATE POLICY p ON djactor.actor', 'ALTER TABLE djactor.actor ENABLE ROW LEVEL SECURITY', 'ALTER TABLE djactor.message DISABLE TRIGGER ALL',
		'ALTER TABLE djactor.message ADD COLUMN x int', 'ALTER TABLE djactor.message OWNER TO CURRENT_USER', 'DROP TABLE djactor.message',
		'CREATE TABLE public.child () INHERITS (djactor.actor)', 'CREATE TABLE public.child (id bigint REFERENCES djactor.message)',
		'CREATE TABLE djactor.x ()', 'CREATE FUNCTION djactor.f() RETURNS int LANGUAGE sql AS $$SELECT 1$$',
		'CREATE OR REPLACE FUNCTION djactor.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT now()$$', 'ALTER FUNCTION djactor.held() SECURITY DEFINER',
		'DROP FUNCTION djactor.held()', 'DROP SCHEMA djactor CASCADE', 'ALTER SCHEMA djactor RENAME TO d', 'ALTER SCHEMA djactor OWNER TO CURRENT_USER',
		'BEGIN; LOCK TABLE djactor.message IN ACCESS EXCLUSIVE MODE', 'BEGIN; LOCK TABLE djactor.actor IN ROW EXCLUSIVE MODE',
		'GRANT SELECT ON djactor.message TO PUBLIC WITH GRANT OPTION', 'CREATE STATISTICS s ON actor_type, actor_key FROM djactor.message',
		'REFRESH MATERIALIZED VIEW djactor.worker', 'CREATE PUBLICATION p FOR TABLE djactor.message', 'ALTER EXTENSION djactor DROP TABLE djactor.message',
		'ALTER TYPE djactor.result ADD ATTRIBUTE x int')
	{
		my ($state) = $statement =~ /REFRESH/ ? '0A000|42501|42809' : '42501';

		$session{$role}->start("\\set VERBOSITY sqlstate\n$statement");
		$session{$role}->finish;
		my $error = $session{$role}->{err};
		$session{$role}->query('ROLLBACK');
		if ($statement =~ /^GRANT/)
		{
			is($super->query(q{SELECT has_table_privilege('stranger', 'djactor.message', 'SELECT')}), 'f', "$role: $statement: to no effect");
			next;
		}
		like($error, qr/ERROR:\s+($state)/, "$role: $statement");
	}
}
# The extension belongs to the database's owner: he may add what is his, and nobody falls for it.
$session{owner}->query(q{
	CREATE SCHEMA fake;
	CREATE TABLE fake.message (LIKE djactor.message);
	CREATE TABLE fake.actor (LIKE djactor.actor);
	CREATE TYPE fake.result AS (state jsonb, reply jsonb);
	ALTER EXTENSION djactor ADD TABLE fake.message;
	ALTER EXTENSION djactor ADD TABLE fake.actor;
	ALTER EXTENSION djactor ADD TYPE fake.result});
is($node->safe_psql('app', q{SELECT djactor.send('mallory.mine', 'true') > 0; SELECT djactor.wait_idle('1 min', 'mallory.mine')}), "t\nt",
	"tables of the owner's, made members of the extension under our names");
is(count('fake.actor') + count('fake.message'), 0, '... are not taken for ours');
is(count(q{djactor.actor WHERE actor_key = 'true'}), 1, '... which go on to be used');
$session{owner}->query(q{
	ALTER EXTENSION djactor DROP TABLE fake.message;
	ALTER EXTENSION djactor DROP TABLE fake.actor;
	ALTER EXTENSION djactor DROP TYPE fake.result;
	DROP SCHEMA fake CASCADE});

# ---- stopping workers by DDL without the right, or where it cannot work ----
sub alive { return count("pg_stat_activity WHERE pid = $pid") }

my $attempt = 0;
sub goes_on
{
	my ($name) = @_;
	my $start = time;

	$attempt++;
	is(alive(), 1, "... victim's handler goes on");
	$super->query(qq{SELECT djactor.send('mallory.mine', 'meanwhile $attempt'); SELECT djactor.wait_idle('1 min', 'mallory.mine')});
	is(count("djactor.actor WHERE actor_key = 'meanwhile $attempt'"), 1, "... others' mail is handled");
	cmp_ok(time - $start, '<', 60, '... which waits for nobody');
}

for my $case ([ 'stranger', 'DROP DATABASE app' ], [ 'stranger', 'DROP DATABASE app WITH (FORCE)' ], [ 'maker', 'DROP DATABASE app' ],
	[ 'maker', 'ALTER DATABASE app RENAME TO mine' ], [ 'owner', 'ALTER DATABASE app RENAME TO mine' ],
	[ 'maker', 'ALTER DATABASE app SET TABLESPACE pg_default' ], [ 'maker', 'CREATE DATABASE mine TEMPLATE app' ],
	[ 'owner', 'CREATE DATABASE mine TEMPLATE app' ],
	[ 'owner', 'BEGIN; DROP DATABASE app' ], [ 'owner', 'BEGIN; ALTER DATABASE app SET TABLESPACE pg_default' ],
	[ 'owner', 'DO $$BEGIN EXECUTE \'DROP DATABASE app\'; END$$' ], [ 'postgres', 'BEGIN; CREATE DATABASE mine TEMPLATE app' ],
	[ 'postgres', 'DO $$BEGIN EXECUTE \'CREATE DATABASE mine TEMPLATE app\'; END$$' ])
{
	my ($role, $statement) = @$case;
	my ($status) = $node->psql('postgres', $statement, extra_params => [ '-U', $role ]);

	isnt($status, 0, "$role: $statement: refused");
	is(alive(), 1, "... victim's handler goes on");
}
for my $statement ('DROP EXTENSION djactor', 'DROP EXTENSION IF EXISTS djactor CASCADE', 'ALTER EXTENSION djactor UPDATE', 'ALTER EXTENSION djactor SET SCHEMA public',
	'COMMENT ON EXTENSION djactor IS $$mine$$', 'ALTER FUNCTION mallory.handle DEPENDS ON EXTENSION djactor')
{
	refused($statement, 'mallory', '42501', $statement);
	goes_on();
}
# ALTER ... DEPENDS ON EXTENSION wants no right to the extension, locks it, and the transaction may stay open
my $open = session($node, 'app', 'stranger');
$open->start(q{BEGIN; CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION pg_temp.f() DEPENDS ON EXTENSION djactor});
$open->finish;
like($open->{err}, qr/must be owner of extension djactor/, 'stranger: ALTER FUNCTION pg_temp.f() DEPENDS ON EXTENSION djactor in an open transaction');
goes_on();
$open->quit;
# an owner's command in an open transaction fails: what it held is free again at once
$open = session($node, 'postgres');
$open->query(q{BEGIN; SAVEPOINT s});
$open->start(q{ALTER DATABASE app RENAME TO template1});
$open->finish;
like($open->{err}, qr/already exists|accessed by other users/, 'superuser: ALTER DATABASE ... RENAME fails in an open transaction');
$open->query('ROLLBACK TO s');
ok(wait_until('a new worker', sub { count(q{djactor.worker WHERE actor_type = 'victim.work'}) }), '... and the workers are back, while it is still open');
$open->query('ROLLBACK');
$open->quit;
is(count(q{djactor.message WHERE actor_key = 'long' AND attempts = 0}), 1, 'the message that was cut off was not charged');

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$_->quit for $super, values %session;
$node->stop('immediate');
done_testing();
