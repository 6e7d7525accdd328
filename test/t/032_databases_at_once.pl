# DROP, RENAME, SET TABLESPACE and CREATE ... TEMPLATE of a database, and DROP EXTENSION, succeed at once while workers are
# busy: within a second, or when the running batch is over. Each is tried while several workers handle a backlog, and, but for
# DROP EXTENSION, while a handler runs that would take five minutes: that one is cut off and not charged.
#
# The second is djactor's: it ends when no worker is left in the database, or when the command is done. What the server does
# then (it copies files, it writes out what is in memory) takes as long as the disk does; it is noted, and so is what the same
# command takes without workers.
#
# A machine with other things to do makes single runs slow, so the best of three counts.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use List::Util qw(min);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('at_once', 'djactor.max_workers' => 6, 'djactor.poll_interval' => '1h', fsync => 'off');
my $tablespace = PostgreSQL::Test::Utils::tempdir_short();

new_app($node, 'app');
define_work($node, 'app', 'app', 't.long');
$node->safe_psql('postgres', "CREATE TABLESPACE other LOCATION '$tablespace'");
my $postgres = session($node, 'postgres');

my $watcher = session($node, 'postgres');

sub took
{
	my ($statement) = @_;
	my $start = time;

	$postgres->query($statement);
	return time - $start;
}

# How long workers of app are in the way of a statement, and how long it takes.
sub waited_and_took
{
	my ($statement) = @_;
	my $database = $watcher->query(q{SELECT oid FROM pg_database WHERE datname = 'app'});
	my $start = time;
	my $waited;

	$postgres->start($statement);
	until ($postgres->finished)
	{
		last if $watcher->query(qq{SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'djactor worker' AND datid = $database}) eq '0';
		sleep 0.002;
	}
	$waited = time - $start;
	$postgres->finish;
	die "$statement: $postgres->{err}" if $postgres->{err} ne '';
	return ($waited, time - $start);
}

# Is a worker of app at work on that type? Asked from elsewhere: a session of ours in app would be in the way.
sub busy
{
	my ($type) = @_;

	return wait_until("a worker runs $type", sub { $postgres->query(qq{SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'djactor worker' AND datname = 'app' AND state = 'active' AND query = 'djactor: $type'}) });
}

# a command, and one that undoes it
my @commands = (
	[ 'ALTER DATABASE ... RENAME', 'ALTER DATABASE %s RENAME TO renamed', 'ALTER DATABASE renamed RENAME TO %s' ],
	[ 'ALTER DATABASE ... SET TABLESPACE', 'ALTER DATABASE %s SET TABLESPACE other', 'ALTER DATABASE %s SET TABLESPACE pg_default' ],
	[ 'CREATE DATABASE ... TEMPLATE', 'CREATE DATABASE copy TEMPLATE %s', 'DROP DATABASE copy' ]);
my %without;
my %work = (
	'a backlog' => sub {
		$node->safe_psql('app', q{SELECT post(1, 1 + (SELECT count(*)::int FROM sent), 2000, 't.work', 400, '{"sleep": 0.002}')})
		  if $node->safe_psql('app', 'SELECT count(*) FROM djactor.message') < 1000;
		return busy('t.work');
	},
	'a long handler' => sub {
		$node->safe_psql('app', q{SELECT djactor.send('t.long', 'long', '{"sleep": 300}')})
		  if $node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_key = 'long'}) eq '0';
		return busy('t.long');
	});

# The same database without workers: a copy with mail is held
$work{'a backlog'}->();
$postgres->query('CREATE DATABASE bare TEMPLATE app');
for my $command (@commands)
{
	my ($name, $do, $undo) = @$command;

	$without{$name} = min map { my $took = took(sprintf $do, 'bare'); took(sprintf $undo, 'bare'); $took } 1 .. 2;
}
for my $work ('a backlog', 'a long handler')
{
	for my $command (@commands)
	{
		my ($name, $do, $undo) = @$command;
		my ($waited, $took);

		for (1 .. 3)
		{
			$work{$work}->() or die 'nothing to disturb';
			($waited, $took) = waited_and_took(sprintf $do, 'app');
			took(sprintf $undo, 'app');
			last if $waited < 1;
		}
		cmp_ok($waited, '<', 1, sprintf '%s while workers have %s: they are out of the way after %.2f s', $name, $work, $waited);
		note sprintf 'measured: %s, %s: workers gone after %.3f s, done after %.3f s (without workers %.3f s)',
			$name, $work, $waited, $took, $without{$name};
	}
}
is($node->safe_psql('app', 'SELECT max(attempts) FROM djactor.message'), '0', 'no message that was cut off was charged');
my ($waited, $took);
for (1 .. 3)
{
	$work{'a long handler'}->();
	($waited, $took) = waited_and_took('DROP DATABASE app');
	last if $waited < 1;
	new_app($node, 'app');
	define_work($node, 'app', 'app', 't.long');
}
cmp_ok($waited, '<', 1, sprintf 'DROP DATABASE while workers have a long handler: they are out of the way after %.2f s', $waited);
note sprintf 'measured: DROP DATABASE, a long handler: workers gone after %.3f s, done after %.3f s', $waited, $took;

# A database that has nothing to do with it need not wait for a handler's end, whatever the handler does
$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS app');
new_app($node, 'app');
my @endless = ('work', 'spin');
if (has_extension('plpython3u'))
{
	push @endless, 'python';
	$node->safe_psql('app', q{
		CREATE EXTENSION plpython3u;
		CREATE FUNCTION python(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpython3u AS 'while True: pass'});
}
$node->safe_psql('app', q{
	CREATE FUNCTION spin(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			state := state;
		END LOOP;
	END $$});
for my $handler (@endless)
{
	$node->safe_psql('app', qq{SELECT djactor.define_actor_type('t.$handler', '$handler', handler_timeout => '0', owner => 'app')});
	$node->safe_psql('app', qq{SELECT djactor.send('t.$handler', 'endless', '{"sleep": 300}')});
	ok(busy("t.$handler"), "a handler runs: $handler");
	$took = took('DROP DATABASE bare');
	cmp_ok($took, '<', 60, sprintf 'DROP DATABASE of another database while handler %s runs: %.2f s', $handler, $took);
	note sprintf 'measured: DROP DATABASE of another one, handler %s: %.3f s', $handler, $took;
	$postgres->query('CREATE DATABASE bare TEMPLATE template0');
}
is($postgres->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'djactor worker' AND state = 'active'}), scalar @endless,
	'... which goes on');
$postgres->query('DROP DATABASE app');

# DROP EXTENSION waits for the end of the running batch, and cuts nothing off
new_app($node, 'app');
$work{'a backlog'}->();
my $session = session($node, 'app', 'app');
my $begin = time;
$session->query('DROP EXTENSION djactor CASCADE');
$took = time - $begin;
cmp_ok($took, '<', 60, sprintf 'DROP EXTENSION while workers have a backlog: %.2f s', $took);
note sprintf 'measured: DROP EXTENSION, a backlog: %.3f s', $took;
ok(wait_until('no worker', sub { $postgres->query(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'djactor worker'}) eq '0' }),
	'... and the workers are gone');
$session->query('CREATE EXTENSION djactor');
define_work($node, 'app', 'app', 't.work');
$session->query(q{SELECT djactor.send('t.work', 'again')});
ok(wait_drained($node, 'app'), 'created again: it works');
$begin = time;
$session->query(q{SELECT djactor.send('t.work', 'slow', '{"sleep": 2}')});
busy('t.work');
$session->query('DROP EXTENSION djactor CASCADE');
$took = time - $begin;
is($session->query(q{SELECT count(*) FROM ledger WHERE actor_key = 'slow'}), 1,
	sprintf 'DROP EXTENSION while a handler runs waits for its end: %.2f s', $took);

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$_->quit for $session, $postgres, $watcher;
$node->stop;
done_testing();
