# Too few places for workers (no free slot of max_worker_processes: 006_limits). One place for three databases: the log says so
# once, with a hint; the launcher does not spin meanwhile; all get on when the place is free. A database that is dropped while
# its types have no worker, since the only place is taken, leaves nothing in shared memory either.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $types = 2100;			# more than half of DJA_MAX_TYPE_QUEUES
my $node = new_server('places', 'djactor.max_workers' => 1, 'djactor.poll_interval' => '1h', fsync => 'off');
my @apps = map { "app$_" } 1 .. 3;

new_app($node, $_) for @apps;
my $postgres = session($node, 'postgres');
my $full = qr/LOG:.*djactor\.max_workers \(1\) are all taken/;

# Processor time of the launcher so far, in hundredths of a second.
sub ticks
{
	my ($pid) = process_ids($node, 'djactor launcher');
	my @stat = split / /, PostgreSQL::Test::Utils::slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr;

	return $stat[11] + $stat[12];
}

sub busy
{
	my ($database) = @_;

	return wait_until("a handler runs in $database", sub { $postgres->query(qq{SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'djactor worker' AND datname = '$database' AND query LIKE 'djactor: %' AND state = 'active'}) });
}

# ---- one place, three databases ----
my $lock = session($node, 'app1');
$lock->query('SELECT pg_advisory_lock(4714)');
$node->safe_psql('app1', q{SELECT djactor.send('t.work', 'slow', '{"lock": 4714}')});
busy('app1');
$node->safe_psql($_, q{SELECT post(1, 1, 50, 't.work', 5)}) for qw(app2 app3);
my $ticks = ticks();
ok(wait_until('the log line', sub { log_count($node, $full) }), 'the only place is taken: the log says so');
like(log_since($node), qr/$full.*?HINT:.*Increase djactor\.max_workers/s, '... with a hint');
is($node->safe_psql($_, 'SELECT count(*) FROM djactor.message'), 50, "mail of $_ waits") for qw(app2 app3);
sleep 1;
cmp_ok(ticks() - $ticks, '<', 50, 'the launcher does not spin');
$lock->quit;
ok(wait_drained($node, $_), "$_ is served when the place is free") for @apps;
check_ledger($node, $_) for qw(app2 app3);
is(log_count($node, $full), 1, 'it was said once');

# ---- nothing to do, for more databases than places ----
sleep 1;
my @pids = process_ids($node, 'djactor worker');
sleep 2;
is("@pids", join(' ', process_ids($node, 'djactor worker')), 'idle databases do not take the place from each other');
is(scalar @pids, 1, '... one of them has it');

# ---- dropped, while there is no place for it ----
my $rows = $node->basedir . '/types';
sub database_of_types
{
	my ($name) = @_;

	new_database($node, $name, 'app');
	as_role($node, $name, 'app', q{
		CREATE SCHEMA app;
		CREATE FUNCTION app.f(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1'});
	$node->safe_psql($name, qq{
		COPY (SELECT 't' || i, 'app.f(jsonb,jsonb)', 'app', '{}', 1, 5, '1 s', '1 h', 'hold', 'dead_letter', '1 s', 'raise', '1 min', 'app'
			FROM generate_series(1, $types) i) TO '$rows';
		COPY djactor.actor_type (name, handler, owner, initial_state, state_version, max_attempts, backoff, backoff_max, retry_order,
			on_exhausted, handler_timeout, on_full, breaker_window, handler_owner) FROM '$rows'});
}
database_of_types('types1');
ok(wait_until('an idle worker', sub { $postgres->query(q{SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'djactor worker' AND datname = 'types1' AND state = 'idle'}) }), "a database with $types types has a worker, which has nothing to do");
$node->safe_psql('app1', q{SELECT djactor.send('t.work', 'long', '{"sleep": 300}')});
ok(busy('app1'), '... until another one takes the only place, for long');
$postgres->query('DROP DATABASE types1');
database_of_types('types2');
# who sends makes sure that the type has a place
my ($status, undef, $error) = $node->psql('types2',
	qq{INSERT INTO djactor.message (actor_type, actor_key) SELECT 't' || i, 'k' FROM generate_series(1, $types) i});
is($status, 0, "dropped meanwhile, it has left nothing: there is room for $types others") or diag($error);
is(log_count($node, qr/no room for actor type|terminated by signal|PANIC|TRAP:/), 0, 'the log has no complaint');
$postgres->quit;
$node->stop('immediate');
done_testing();
