# Contract 3, 4, 6, 15: under load, any process of the server is killed with SIGKILL: launcher, a scout, a worker, a sender's backend,
# checkpointer, background writer, WAL writer, autovacuum launcher and worker, with
# immediate stops in between, and the startup process while the server recovers from one.  Each time the server recovers by
# itself (but for the last: then it is started again); the ledger agrees in the end.
# (003_sigkill.pl kills workers a hundred times, 004_crash.pl stops the whole server, 016_crash_marker.pl says who is charged.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('kill', 'djactor.max_workers' => 3, 'djactor.max_crashes' => 1000,
	max_wal_size => '256MB', checkpoint_timeout => '1h', autovacuum_naptime => '1s', autovacuum_vacuum_cost_delay => '100ms',
	autovacuum_vacuum_cost_limit => 1);

new_app($node, 'app');
define_work($node, 'app', 'app', 't.more', q{retry_order => 'hold', concurrency => 1});
start_ticking($node, 'app', 'app', '200 ms');
start_sender($node, 'app', 'app', id => $_, keys => 20 * $_, fail => 50, types => [ 't.work', 't.more' ], pause => 0.005) for 1 .. 3;

# Processes that are soon gone are made to stay: a scout by a lock, an autovacuum worker by its cost limit.
sub make_scout
{
	my $lock = session($node, 'block');

	$lock->query('BEGIN; LOCK TABLE djactor.home');
	$node->safe_psql('block', "COPY djactor.actor_type FROM stdin;\n\\.\n");
	return $lock;
}

# The process that recovers, killed as soon as it is there; whether it was.  (A session that logs in has "startup" at the
# end of its title.)
sub kill_startup
{
	my $data = $node->data_dir;
	my $killer = fork // die "fork: $!";

	if ($killer == 0)
	{
		my $until = time + 20;

		while (time < $until)
		{
			for my $pid (map { m{/proc/(\d+)/} } glob '/proc/[0-9]*/cmdline')
			{
				next unless (readlink("/proc/$pid/cwd") // '') eq $data && eval { slurp_file("/proc/$pid/cmdline") } =~ /^postgres: (?:\S+: )?startup/;
				POSIX::_exit(kill('KILL', $pid) ? 0 : 1);
			}
			sleep 0.001;
		}
		POSIX::_exit(1);
	}
	my $up = $node->start(fail_ok => 1);

	kill 'KILL', $killer;    # it came too late, or is gone; SIGTERM would have it run END, which stops the server
	waitpid($killer, 0);
	$node->start unless $up;
	return !$up;
}

new_database($node, 'block');
$node->safe_psql('app', q{
	CREATE TABLE public.litter (n int) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0);
	INSERT INTO public.litter SELECT generate_series(1, 20000)});

my @victims = ('djactor launcher', 'djactor worker', 'client backend', 'checkpointer', 'background writer', 'walwriter',
	'autovacuum launcher', 'autovacuum worker', 'djactor scout');
my $kills = 0;
my $recoveries = 0;

for my $round (1 .. 3)
{
	for my $victim (@victims, 'immediate stop')
	{
		my $before;

		# some load after the last one
		ok(wait_until('load', sub {
			$before //= $node->safe_psql('app', 'SELECT count(*) FROM ledger');
			$node->safe_psql('app', 'SELECT count(*) FROM ledger') > $before }), "round $round: mail is handled before $victim");
		if ($victim eq 'immediate stop')
		{
			$node->stop('immediate');
			$recoveries += kill_startup();
			next;
		}
		my $offset = -s $node->logfile;
		my $lock = $victim eq 'djactor scout' ? make_scout() : undef;
		$node->safe_psql('app', 'DELETE FROM public.litter WHERE n % 3 = ' . ($round - 1)) if $victim eq 'autovacuum worker';
		my $pid = wait_until("a $victim", sub { $node->safe_psql('postgres', qq{
			SELECT pid FROM pg_stat_activity WHERE backend_type = '$victim' AND pid <> pg_backend_pid()
				AND (datname IN ('app', 'block') OR datname IS NULL) ORDER BY random() LIMIT 1}) });

		# a session that comes and goes may have ended just now: then there was nobody to kill
		$kills += kill 'KILL', $pid if $pid;
		next if $victim =~ /client backend|autovacuum worker|djactor scout/ && !wait_until('a restart', sub { log_count($node, qr/all server processes terminated; reinitializing/, $offset) }, 5);
		ok(wait_until('a restart', sub { log_count($node, qr/all server processes terminated; reinitializing/, $offset)
			&& $node->safe_psql('app', 'SELECT 1') }), "round $round: $victim killed, the server starts anew");
		$lock->quit if $lock;
	}
}
cmp_ok($kills, '>=', 24, "$kills processes were killed");

# one that is over in no time may come to its end before it is seen
for (1 .. 20)
{
	my $before = $node->safe_psql('app', 'SELECT count(*) FROM ledger');

	last if $recoveries;
	wait_until('load', sub { $node->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 100 });
	$node->stop('immediate');
	$recoveries += kill_startup();
}
cmp_ok($recoveries, '>=', 1, "$recoveries recoveries were cut off");

my $known = stop_senders();
my $ticks = q{SELECT (state->>'ticks')::int FROM djactor.actor WHERE actor_type = 't.ticks'};
my $ticked = $node->safe_psql('app', $ticks);
ok(wait_until('a tick', sub { $node->safe_psql('app', $ticks) > $ticked }), 'the timer has outlived it all');
is($node->safe_psql('app', q{SELECT turns - (state->>'ticks')::int FROM djactor.actor WHERE actor_type = 't.ticks'}), 0, '... each firing one turn');
as_role($node, 'app', 'app', q{SELECT djactor.stop_actor('t.ticks', 'k')});
ok(wait_drained($node, 'app'), 'all mail is handled in the end');
check_ledger($node, 'app', $known);
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no dead letters');
is(log_count($node, qr/PANIC|TRAP:|terminated by signal (?!9)/), 0, 'nothing else crashed');
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM sent'), '>', 500, 'there was load');

$node->stop;
done_testing();
