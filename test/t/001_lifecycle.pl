# The processes and the server's life.
#
# - The launcher starts with the server; each (database, role) pair with actor types has its
#   own pool with a resident worker, logged in as that role (contract 24).
# - Workers beyond the resident come when mail piles up and end after djactor.idle_timeout.
# - A restart finds the mail that waits; so does a server started with a
#   changed set of databases.
# - Without the preload CREATE EXTENSION warns, and sending raises 55000 with a hint: no message is
#   left lying silently.
# - Library and extension of different versions, either way round: mail waits, the log and senders
#   are told why, and it goes on when they fit again.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('life', 'djactor.max_workers' => 6, 'djactor.idle_timeout' => '1s');

# the server may be up before the launcher, which it has started, shows
ok(wait_until('a launcher', sub { process_ids($node, 'djactor launcher') == 1 }), 'one launcher runs');
is(scalar(process_ids($node, 'djactor worker')), 0, 'no worker runs where no actor type is');

#
# Pools
#
new_app($node, 'app1', 'app');
new_app($node, 'app2', 'app');
as_role($node, 'app1', 'app', 'GRANT USAGE ON SCHEMA public TO PUBLIC');
$node->safe_psql('app1', q{
	CREATE ROLE other LOGIN;
	CREATE FUNCTION public.whoami(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
		$$ SELECT jsonb_build_object('pid', pg_backend_pid(), 'session', session_user,
			'current', current_user, 'database', current_database()) $$;
	SELECT djactor.define_actor_type('t.app', 'public.whoami', owner => 'app');
	SELECT djactor.define_actor_type('t.other', 'public.whoami', owner => 'other');
	INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.app', 'x'), ('t.other', 'x')});
$node->safe_psql('app2', q{
	CREATE FUNCTION public.whoami(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
		$$ SELECT jsonb_build_object('pid', pg_backend_pid(), 'session', session_user,
			'current', current_user, 'database', current_database()) $$;
	SELECT djactor.define_actor_type('t.app', 'public.whoami', owner => 'app');
	INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.app', 'x')});
ok(wait_drained($node, $_), "mail of $_ is handled") for 'app1', 'app2';

my $who = q{SELECT state->>'session', state->>'current', state->>'database' FROM djactor.actor WHERE actor_type = };
is($node->safe_psql('app1', "$who 't.app'"), 'app|app|app1', 'the owner runs the handler');
is($node->safe_psql('app1', "$who 't.other'"), 'other|other|app1', 'another owner, another session');
is($node->safe_psql('app2', "$who 't.app'"), 'app|app|app2', 'another database, another session');
is(join(' ', map { "$_->[2]:$_->[3]" } sort { $a->[2] cmp $b->[2] } workers($node, 'app1')),
	'app:t other:t', 'each role has its resident, shown in djactor.worker');
is(join(' ', map { "$_->[2]:$_->[3]" } workers($node, 'app2')), 'app:t', 'of this database only');

#
# More workers, and their end
#
$node->safe_psql('app1', q{SELECT post(1, 1, 200, 't.work', 200, '{"sleep": 0.02}')});
ok(wait_until('more than one worker', sub {
	1 < grep { $_->[2] eq 'app' } workers($node, 'app1') }), 'more workers come when mail piles up');
ok(wait_drained($node, 'app1'), 'and the mail is handled');
cmp_ok($node->safe_psql('app1', 'SELECT count(DISTINCT pid) FROM ledger'), '>', 1, 'by several of them');
ok(wait_until('the resident alone', sub {
	join(' ', map { "$_->[2]:$_->[3]" } sort { $a->[2] cmp $b->[2] } workers($node, 'app1')) eq 'app:t other:t' }),
	'idle workers end, the residents stay');

#
# Restart
#
$node->safe_psql('app1', q{SELECT djactor.pause('t.work'); SELECT post(2, 1, 1000, 't.work', 100)});
$node->safe_psql('app2', q{
	SELECT djactor.pause('t.work');
	SELECT post(2, 1, 3000, 't.work', 2000);
	SELECT djactor.send('t.work', 'later', '{"sender": 3, "seq": 1}', deliver_at => now() + '2 s')});
$node->restart;
is($node->safe_psql('app1', q{SELECT count(*) FROM djactor.message}), 1000, 'mail of a paused type waits over a restart');
$node->safe_psql($_, q{SELECT djactor.resume('t.work')}) for 'app1', 'app2';
ok(wait_drained($node, $_), "resumed mail of $_ is handled") for 'app1', 'app2';
is($node->safe_psql('app2', 'SELECT count(*) FROM ledger'), 3001, 'the delayed message too');
is(scalar(process_ids($node, 'djactor launcher')), 1, 'one launcher runs after the restart');

# mail that waits when the server starts, with nobody who sends or resumes
$node->safe_psql('app1', q{SELECT djactor.send('t.work', 'k', '{"sender": 4, "seq": 1}', deliver_at => now() + '1 s')});
$node->safe_psql('app2', q{SELECT djactor.send('t.work', 'k', '{"sender": 4, "seq": 1, "fail": 5}')});
$node->stop;
$node->start;
ok(wait_drained($node, $_), "the start finds waiting mail of $_") for 'app1', 'app2';
$node->stop('immediate');
$node->start;

#
# Other versions: the extension is older than the library, then newer
#
my %expect = (
	'0.9' => [ qr/older than the loaded library/, qr/ALTER EXTENSION djactor UPDATE/ ],
	'1.99' => [ qr/newer than the loaded library/, qr/Restart the server/ ]);

for my $version ('0.9', '1.99')
{
	my $offset = -s $node->logfile;
	my ($message, $hint) = @{ $expect{$version} };
	my ($status, $out, $err);

	# in one transaction, so that it cannot be handled before
	$node->safe_psql('app1', qq{
		SET allow_system_table_mods = on;
		BEGIN;
		SELECT djactor.send('t.work', 'late', '{"sender": 5, "seq": 1}', deliver_at => now() + '2 s');
		UPDATE pg_extension SET extversion = '$version' WHERE extname = 'djactor';
		COMMIT});
	($status, $out, $err) = $node->psql('app1', q{
		\set VERBOSITY verbose
		SELECT djactor.send('t.work', 'refused')});
	like($err, qr/55000.*$message/, "extension $version: sending is refused");
	like($err, qr/HINT:.*$hint/, '... with a hint');
	($status, $out, $err) = $node->psql('app1', q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.work', 'refused')});
	like($err, $message, '... INSERT too');
	ok(wait_until('the log line', sub {
		log_since($node, $offset) =~ /stands still in database "app1".*extension has version \Q$version\E/ }),
		'... the log says that it stands still');
	like(log_since($node, $offset), qr/HINT:.*$hint/, '... with a hint');
	ok(wait_until('no workers', sub { !workers($node, 'app1') }), '... no worker stays');
	sleep 2;
	is($node->safe_psql('app1', 'SELECT count(*) FROM djactor.message'), 1, '... mail waits');
	as_role($node, 'app2', 'app', q{SELECT djactor.send('t.work', 'k', '{"sender": 6, "seq": 1}')});
	ok(wait_drained($node, 'app2'), '... another database is not concerned');
	cmp_ok(log_count($node, qr/stands still/, $offset), '<=', 3, '... and the log is not flooded');

	$node->safe_psql('app1', q{
		SET allow_system_table_mods = on;
		UPDATE pg_extension SET extversion = default_version FROM pg_available_extensions
			WHERE name = 'djactor' AND extname = 'djactor'});
	# either way of putting it right is noticed
	if ($version eq '0.9') { $node->safe_psql('app1', 'ALTER EXTENSION djactor UPDATE') }
	else { $node->restart }
	ok(wait_drained($node, 'app1'), '... and is handled once they fit again');
	as_role($node, 'app1', 'app', q{SELECT djactor.send('t.work', 'k', '{"sender": 6, "seq": 1}')});
	ok(wait_drained($node, 'app1'), '... as is what is sent then');
}

#
# Without the preload
#
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
# a role that may not log in has no workers: so it waits, however long the restart takes
$node->safe_psql('app1', q{
	ALTER ROLE app NOLOGIN;
	SELECT djactor.send('t.work', 'before', '{"sender": 7, "seq": 1}')});
$node->restart;
for my $sql (q{SELECT djactor.send('t.work', 'k')},
	q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.work', 'k')},
	q{SELECT djactor.define_actor_type('t.new', 'public.work')},
	q{SELECT djactor.drain()})
{
	my ($status, $out, $err) = $node->psql('app1', "\\set VERBOSITY verbose\n$sql");

	like($err, qr/ERROR:  55000: /, "not preloaded: 55000 from $sql");
	like($err, qr/HINT:.*shared_preload_libraries/, '... with a hint');
}
is($node->safe_psql('app1', 'SELECT count(*) FROM djactor.message'), 1, 'no message was stored then');
$node->safe_psql('postgres', 'CREATE DATABASE app3');
my ($status, $out, $err) = $node->psql('app3', 'CREATE EXTENSION djactor');
is($status, 0, 'CREATE EXTENSION works without the preload');
like($err, qr/WARNING:.*not loaded by the server.*HINT:.*shared_preload_libraries/s, 'and warns');
is(scalar(process_ids($node, 'djactor launcher')), 0, 'no launcher runs');

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'djactor'");
$node->safe_psql('postgres', 'ALTER ROLE app LOGIN');
$node->restart;
ok(wait_drained($node, 'app1'), 'with the preload back, what waited is handled');
$node->safe_psql('app3', q{
	CREATE FUNCTION f(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
	SELECT djactor.define_actor_type('t.f', 'f');
	SELECT djactor.send('t.f', 'k')});
ok(wait_drained($node, 'app3'), 'and the extension that was created without it works');

is(log_count($node, qr/PANIC|TRAP:|was terminated by signal/), 0, 'nothing crashed');
$node->stop;
done_testing();
