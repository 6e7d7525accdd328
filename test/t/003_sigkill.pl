# Contract 3, 4, 6, 9: a hundred times a worker is killed with SIGKILL in the middle of a batch, while
# several clients send, commit and roll back, and some messages fail before they succeed.  Each kill
# makes the postmaster end all other processes and start anew.  The ledger shows that no message was
# lost, none handled twice, none handled that was rolled back, and that the order was kept.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $kills = $ENV{DJACTOR_KILLS} // 100;
my $node = new_server('sigkill',
	'djactor.max_workers' => 3,
	'djactor.batch_time' => '50ms',
	'djactor.max_crashes' => 1000,	# none of them is the message's fault
	max_wal_size => '256MB',
	checkpoint_timeout => '1h');

new_app($node, 'app');
define_work($node, 'app', 'app', 't.more');

# Handlers slow enough for a batch to be under way whenever the signal comes
$node->safe_psql('app', q{
	CREATE FUNCTION public.slow_work(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
		$$ SELECT public.work(state, message) FROM pg_sleep(0.001) $$;
	SELECT djactor.define_actor_type('t.slow', 'public.slow_work', owner => 'app', max_attempts => 20, breaker_failures => NULL,
		backoff => '10 ms', backoff_max => '100 ms')});

my $began = time;
start_sender($node, 'app', 'app', id => $_, keys => 5 * $_, fail => 40, pause => 0.005,
	types => [ 't.work', 't.more', 't.slow' ]) for 1 .. 4;

my $done = 0;
my $in_batch = 0;
while ($done < $kills)
{
	my $pid = wait_until('a busy worker', sub {
		my @busy = map { [ split /\|/ ] } split /\n/, $node->safe_psql('app', q{
			SELECT pid, message_id IS NOT NULL FROM djactor.worker WHERE state = 'busy' AND pid IS NOT NULL
			ORDER BY message_id IS NULL, random() LIMIT 1});
		return undef unless @busy;
		$in_batch++ if $busy[0][1] eq 't';
		return $busy[0][0];
	});

	last unless $pid;
	# The pid was of this server's worker a moment ago
	kill 'KILL', $pid or next;
	$done++;
	# not always the very first batch after the restart
	sleep rand 0.3;
}
is($done, $kills, "$kills workers were killed");
note(sprintf '%d kills in %.0f s, %d of them seen inside a handler', $done, time - $began, $in_batch);

my $known = stop_senders();
ok(wait_drained($node, 'app'), 'all mail is handled in the end');
cmp_ok($in_batch, '>', $kills / 4, 'the kills hit batches under way');
cmp_ok(log_count($node, qr/djactor worker.*was terminated by signal 9/), '>=', $kills * 0.95,
	'the server saw them');
is(log_count($node, qr/terminated by signal (?!9)|PANIC|TRAP:|reserved on bogus|could not record the failure/), 0, 'nothing else crashed');

check_ledger($node, 'app', $known);
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no dead letters');
note('messages: ', $node->safe_psql('app', q{
	SELECT (SELECT count(*) FROM sent) || ' committed, ' || (SELECT count(*) FROM ledger) || ' handled, '
		|| (SELECT sum(failures) FROM djactor.actor) || ' failed attempts'}),
	'; rolled back: ', eval { my $n = 0; $n += $_->[2] for @{ $known->{'rolled back'} }; $n });
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM sent'), '>', 10 * $kills, 'there was load');

$node->stop;
done_testing();
