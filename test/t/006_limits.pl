# Too few processes.
#
# - No free slot of max_worker_processes: the log says so once, with a hint; mail waits, and is
#   handled without anybody's help once a slot is free.
# - More pools than djactor.max_workers: all make progress, with one worker too, and under
#   steady load on all of them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep);

#
# max_worker_processes: the launcher has one, PostgreSQL's own logical replication launcher one, and
# the third goes to a parallel query first.
#
my $node = new_server('slots',
	max_worker_processes => 3,
	max_parallel_workers => 3,
	'djactor.max_workers' => 2);

$node->safe_psql('postgres', q{
	CREATE TABLE big AS SELECT i FROM generate_series(1, 1000) i;
	ANALYZE big;
	CREATE FUNCTION nap() RETURNS boolean LANGUAGE plpgsql COST 100000 PARALLEL SAFE AS
		'BEGIN PERFORM pg_sleep(0.3); RETURN true; END'});
my $hog = session($node, 'postgres');
my $occupied = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'};

# takes the last slot, after $before
sub occupy
{
	my ($name, $before) = @_;

	$hog->query(q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
		SET max_parallel_workers_per_gather = 1});
	ok(wait_until($name, sub {
		$before->();
		$hog->start(q{SELECT count(*) FROM big WHERE nap()});
		for (1 .. 10)
		{
			return 1 if $node->safe_psql('postgres', $occupied) eq '1';
			sleep 0.05;
		}
		free_slot();
		return 0;
	}), $name);
}

sub free_slot
{
	$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM big%'});
	eval { $hog->finish };
}

occupy('the last slot is taken', sub { });
my $offset = -s $node->logfile;
new_app($node, 'app');
$node->safe_psql('app', q{SELECT post(1, 1, 100, 't.work', 10)});
my $message = qr/djactor cannot start a process: no background worker slot is free/;
ok(wait_until('the log line', sub { log_count($node, $message, $offset) }), 'the log says that no slot is free');
sleep 4;
is(log_count($node, $message, $offset), 1, '... once');
like(log_since($node, $offset), qr/HINT:.*max_worker_processes/, '... with a hint');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 100, 'mail waits');
free_slot();
ok(wait_drained($node, 'app'), 'and is handled as soon as there is a slot');
check_ledger($node, 'app');

# The worker has gone, and before there is another one its place is taken
$node->safe_psql('app', q{SELECT djactor.pause('t.work'); SELECT post(2, 1, 100, 't.work', 10); ALTER ROLE app NOLOGIN});
occupy('a worker is gone, and its slot too', sub {
	$node->safe_psql('app', 'SELECT pg_terminate_backend(pid) FROM djactor.worker WHERE pid IS NOT NULL') });
$node->safe_psql('app', q{ALTER ROLE app LOGIN; SELECT djactor.resume('t.work')});
sleep 2;
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 100, 'mail waits');
free_slot();
ok(wait_drained($node, 'app'), 'and is handled then');
check_ledger($node, 'app');
$hog->quit;
$node->stop;

#
# djactor.max_workers: six pools, two workers
#
$node = new_server('places', 'djactor.max_workers' => 2);
my @apps = map { "app$_" } 1 .. 5;
new_app($node, $_, "owner_$_") for @apps;
$node->safe_psql('app1', q{
	CREATE ROLE second LOGIN;
	GRANT ALL ON ledger, ledger_serial_seq TO second;
	GRANT USAGE ON SCHEMA public TO second;
	GRANT SELECT ON djactor.message TO second;
	SELECT djactor.define_actor_type('t.second', 'public.work', owner => 'second');
	SELECT post(9, 1, 50, 't.second', 5)});
$node->safe_psql($_, q{SELECT post(1, 1, 50, 't.work', 5)}) for @apps;
ok(wait_drained($node, $_), "mail of $_ is handled, with two workers for six pools") for @apps;

# Steady load on all; each must get on within a time that is short against the load
start_sender($node, $_, "owner_$_", id => 10 + substr($_, 3), pause => 0.02) for @apps;
sleep 2;
for my $app (@apps)
{
	my $before = $node->safe_psql($app, 'SELECT count(*) FROM ledger');

	ok(wait_until("$app gets on", sub { $node->safe_psql($app, 'SELECT count(*) FROM ledger') > $before + 20 }),
		"$app makes progress while all five have mail all the time");
}
stop_senders();
for my $app (@apps)
{
	ok(wait_drained($node, $app), "mail of $app is handled");
	check_ledger($node, $app);
}
cmp_ok(scalar(process_ids($node, 'djactor worker')), '<=', 2, 'never more workers than djactor.max_workers');
$node->stop;
done_testing();
