# An idle server with djactor runs no query and uses no measurable CPU: with a database full of
# actors, a message delayed for an hour, a paused type with mail, and a dead letter.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('idle',
	autovacuum => 'off',
	'djactor.max_workers' => 4,
	'djactor.idle_timeout' => '1s',
	'djactor.poll_interval' => '1h');

new_app($node, 'app');
new_app($node, 'app2', 'other');
define_work($node, 'app', 'app', 't.paused');
define_work($node, 'app', 'app', 't.waits', q{retry_order => 'skip'});
$node->safe_psql('app', q{
	SELECT djactor.pause('t.paused');
	SELECT post(1, 1, 100, 't.paused', 10);
	SELECT post(2, 1, 5000, 't.work', 1000);
	SELECT djactor.send('t.work', 'later', deliver_at => now() + '1 h');
	SELECT djactor.send('t.waits', 'expired', expires_at => now() - interval '1 s')});
ok(wait_until('all is done', sub {
	$node->safe_psql('app', 'SELECT count(*) FROM djactor.message') eq '101' }), 'what can be handled is');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 1, 'there is a dead letter');
my @pids;
ok(wait_until('nobody else', sub {
	@pids = (process_ids($node, 'djactor launcher'), process_ids($node, 'djactor worker'));
	@pids == 3 }), 'a launcher and two residents');
ok(wait_written($node, $_), "the history of $_ is written, though nobody wakes its resident") for 'app', 'app2';
sleep 4;

# user and system time of these processes, in ticks of 10 ms; and the transactions of both databases,
# as somebody sees them who is in neither
sub ticks
{
	my $sum = 0;

	for my $pid (@pids)
	{
		my @fields = split ' ', slurp_file("/proc/$pid/stat") =~ s/^.*\) //r;

		$sum += $fields[11] + $fields[12];
	}
	return $sum;
}
sub transactions
{
	return $node->safe_psql('postgres',
		q{SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname LIKE 'app%'});
}

my ($ticks, $transactions) = (ticks(), transactions());
sleep 10;
is(transactions(), $transactions, 'no transaction within ten seconds');
cmp_ok(ticks() - $ticks, '<=', 2, 'no measurable CPU of launcher and workers');
is(join(' ', process_ids($node, 'djactor launcher'), process_ids($node, 'djactor worker')), "@pids", 'the same processes');

$node->safe_psql('app', q{SELECT post(3, 1, 10, 't.work', 10)});
ok(wait_until('handled', sub {
	$node->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender = 3') eq '10' }), 'and they are awake at once');

$node->stop;
done_testing();
