# Contract 2 and 28: who waits for whom.
#
# - One type's backlog delays another type by about a batch, with a single worker.
# - A handler that takes long holds up its actor only: another worker comes to help.
# - concurrency => 1 never has two workers in the type, while other types use several.
# - Several workers never run two turns of one actor at once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

#
# One worker
#
my $node = new_server('fair', 'djactor.max_workers' => 1);

new_app($node, 'app');
define_work($node, 'app', 'app', 't.backlog');
define_work($node, 'app', 'app', 't.single', 'batch_size => 1');

# 3,000 messages of 2 ms: some 6 s, in batches of 10 ms
for my $backlog ('t.backlog', 't.single')
{
	for my $keys (500, 1)
	{
		my $sender = "$backlog $keys" =~ /backlog/ ? $keys : 1000 + $keys;
		my ($before, $overtaken, $left);

		$node->safe_psql('app', qq{SELECT post($sender, 1, 3000, '$backlog', $keys, '{"sleep": 0.002}')});
		wait_until('the backlog is being handled', sub {
			$node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $sender") > 50 });
		# how many of the backlog were handled between the commit and this message
		$before = $node->safe_psql('app', qq{
			SELECT post($sender + 1, 1, 1, 't.work', 1);
			COMMIT;
			SELECT count(*) FROM ledger WHERE sender = $sender});
		ok(wait_until('the other type is handled', sub {
			$node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $sender + 1") eq '1' }),
			"$backlog with $keys actors has a backlog, another type is handled");
		$overtaken = $node->safe_psql('app', qq{
			SELECT count(*) FROM ledger WHERE sender = $sender
			AND serial < (SELECT serial FROM ledger WHERE sender = $sender + 1)}) - $before;
		$left = $node->safe_psql('app', "SELECT count(*) FROM djactor.message WHERE actor_type = '$backlog'");
		# a batch has five; starving the only worker of the CPU makes it no more
		cmp_ok($overtaken, '<', 100, "... after about a batch of the backlog ($overtaken messages, $left left)");
		$node->safe_psql('app', qq{SELECT djactor.pause('$backlog')});
		# a batch may still be under way, and commits before both or finds its messages gone
		$node->safe_psql('app', qq{
			SET allow_system_table_mods = on; SET session_replication_role = replica;
			BEGIN;
			LOCK TABLE djactor.message IN EXCLUSIVE MODE;
			DELETE FROM sent WHERE (sender, seq) IN (SELECT (payload->>'sender')::int, (payload->>'seq')::int
				FROM djactor.message WHERE actor_type = '$backlog');
			DELETE FROM djactor.message WHERE actor_type = '$backlog';
			COMMIT;
			SELECT djactor.resume('$backlog')});
	}
}
check_ledger($node, 'app');
$node->stop;

#
# Several workers
#
$node = new_server('busy', 'djactor.max_workers' => 4, 'djactor.idle_timeout' => '2s');
new_app($node, 'app');
define_work($node, 'app', 'app', 't.slow');

my $lock = session($node, 'app');
$lock->query('SELECT pg_advisory_lock(4713)');
$node->safe_psql('app', q{SELECT post(1, 1, 1, 't.slow', 1, '{"lock": 4713}')});
ok(wait_until('the slow handler runs', sub {
	$node->safe_psql('app', q{SELECT count(*) FROM djactor.worker w JOIN pg_stat_activity USING (pid) WHERE wait_event = 'advisory'}) eq '1' }),
	'a handler takes long');
$node->safe_psql('app', q{SELECT post(2, 1, 20, 't.work', 20); SELECT post(3, 1, 19, 't.slow', 20)});
ok(wait_until('others are handled', sub {
	$node->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender IN (2, 3)') eq '39' }),
	'another type, and other actors of the same type, are handled meanwhile');
is($node->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender = 1'), 0, '... while it still runs');
$lock->quit;
ok(wait_drained($node, 'app'), 'it ends as well');

# concurrency: the lock is the type's, and stands until the end of the batch
$node->safe_psql('app', q{
	CREATE FUNCTION public.limited(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF NOT pg_try_advisory_xact_lock(4711) THEN
			RAISE LOG 'CROWD: two workers in a type of concurrency 1';
		END IF;
		RETURN public.work(state, message);
	END $$;
	SELECT djactor.define_actor_type('t.limited', 'public.limited', concurrency => 1, max_attempts => 20, breaker_failures => NULL,
		backoff => '10 ms', owner => 'app');
	SELECT post(4, 1, 400, 't.limited', 100, '{"sleep": 0.005}');
	SELECT post(5, 1, 400, 't.work', 100, '{"sleep": 0.01}');
	SELECT post(4, 401, 400, 't.limited', 100, '{"sleep": 0.005}')});
ok(wait_drained($node, 'app'), 'a type of concurrency 1 beside another one');
is(log_count($node, qr/CROWD/), 0, 'never two workers in the type of concurrency 1');
cmp_ok($node->safe_psql('app', 'SELECT count(DISTINCT pid) FROM ledger WHERE sender = 5'), '>', 1,
	'while the other one has several');

# no more workers than the limit, when it is two
$node->safe_psql('app', q{
	CREATE FUNCTION public.limited_two(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		-- a lock for each worker, until its transaction ends
		PERFORM pg_advisory_xact_lock_shared(4712);
		IF (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND objid = 4712) > 2 THEN
			RAISE LOG 'CROWD: three workers in a type of concurrency 2';
		END IF;
		RETURN public.work(state, message);
	END $$;
	SELECT djactor.define_actor_type('t.two', 'public.limited_two', concurrency => 2, max_attempts => 20, breaker_failures => NULL,
		backoff => '10 ms', owner => 'app');
	SELECT post(6, 1, 400, 't.two', 100, '{"sleep": 0.01}')});
ok(wait_drained($node, 'app'), 'a type of concurrency 2');
is(log_count($node, qr/CROWD/), 0, 'never three workers in the type of concurrency 2');
cmp_ok($node->safe_psql('app', 'SELECT count(DISTINCT pid) FROM ledger WHERE sender = 6'), '>', 1, 'but two');

# Few actors get all the mail there is, from all sides; some of it takes so long that one worker is not enough
start_sender($node, 'app', 'app', id => 100 + $_, keys => 3, fail => 100, types => [ 't.work', 't.two', 't.limited' ]) for 1 .. 4;
$node->safe_psql('app', q{SELECT post(100, 1, 300, 't.two', 3, '{"sleep": 0.01}')});
sleep 6;
my $known = stop_senders();
ok(wait_drained($node, 'app'), 'few actors, many workers');
cmp_ok($node->safe_psql('app', 'SELECT count(DISTINCT pid) FROM ledger WHERE sender >= 100'), '>', 1, 'several took part');
is(log_count($node, qr/CROWD/), 0, 'concurrency is kept under load');
check_ledger($node, 'app', $known);

$node->stop;
done_testing();
