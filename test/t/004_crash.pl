# Contract 3, 4, 6, 9: immediate shutdowns, a postmaster killed with SIGKILL, and fast shutdowns, many times
# under load.  Crash recovery is PostgreSQL's own: afterwards the ledger agrees, and the start
# finds what waits.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('crash',
	'djactor.max_workers' => 3,
	'djactor.run_queue_size' => 256,	# the sweep has its part
	max_wal_size => '256MB',
	checkpoint_timeout => '1h');

new_app($node, 'app');
define_work($node, 'app', 'app', 't.more', q{retry_order => 'hold', concurrency => 1});
start_sender($node, 'app', 'app', id => $_, keys => 40 * $_, fail => 50, big => 200,
	types => [ 't.work', 't.more' ], pause => 0.005) for 1 .. 3;

# all processes that run in the data directory, the postmaster's children included
sub children
{
	my $data = $node->data_dir;

	return grep { (readlink("/proc/$_/cwd") // '') eq $data } map { m{/proc/(\d+)} } glob '/proc/[0-9]*';
}

my $began = time;
my $rounds = 0;
for my $round (1 .. 24)
{
	sleep 0.2 + rand 0.6;
	if ($round % 3 == 0)
	{
		my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');

		$node->kill9;
		last unless wait_until('all processes have ended', sub { !kill(0, $postmaster) && !children() });
	}
	else
	{
		$node->stop($round % 3 == 1 ? 'immediate' : rand() < 0.5 ? 'fast' : 'immediate');
	}
	$node->start;
	$rounds++;
}
is($rounds, 24, 'the server went down and up 24 times');
note(sprintf '%.0f s', time - $began);

my $known = stop_senders();
ok(wait_drained($node, 'app'), 'all mail is handled in the end');
check_ledger($node, 'app', $known);
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no dead letters');
is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed by itself');
note('messages: ', $node->safe_psql('app', 'SELECT count(*) FROM sent'));
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM sent'), '>', 1000, 'there was load');

# Waiting mail and no sender at all: the start alone finds it
$node->safe_psql('app', q{
	SELECT djactor.pause('t.work');
	SELECT post(50, 1, 5000, 't.work', 2000);
	SELECT djactor.send('t.more', 'later', '{"sender": 51, "seq": 1}', deliver_at => now() + '1 s');
	INSERT INTO sent VALUES (51, 1, 't.more', 'later')});
$node->stop('immediate');
$node->start;
$node->safe_psql('app', q{SELECT djactor.resume('t.work')});
$node->stop('immediate');
$node->start;
ok(wait_drained($node, 'app'), 'mail that waits at the start is handled, more than the queue holds');
check_ledger($node, 'app');

$node->stop;
done_testing();
