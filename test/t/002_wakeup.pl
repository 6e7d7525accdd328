# Wake-ups, with polling off (djactor.poll_interval = 1h): a message that is handled
# within seconds was announced.
#
# - Each commit is handled, whether it finds the pool busy, lingering, asleep, or
#   on the way from one to the other; with one sender and with several at once.
# - While the pool sleeps the sender's commit is a NOTIFY djactor that anybody can LISTEN to; under
#   steady load there is none.
# - NOTIFY djactor by hand has the pool look for mail that nobody announced.
# - COMMIT PREPARED wakes, ROLLBACK PREPARED sends nothing (contract 4).
# - A delayed message and a retry are handled when they are due, without polling.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('wake',
	'djactor.poll_interval' => '1h',
	'djactor.idle_timeout' => '1s',
	max_prepared_transactions => 5);

new_app($node, 'app');
my $session = session($node, 'app', 'app');
my $seq = 0;

sub handled
{
	return $session->query("SELECT count(*) FROM ledger WHERE sender = $_[0] AND seq = $_[1]") eq '1';
}

sub asleep
{
	ok(wait_drained($node, 'app'), 'nothing waits');
	# a second of lingering, and some, from when all workers have become idle
	wait_until('they sleep', sub { $session->query(q{
		SELECT bool_and(state = 'idle' AND now() - since > '1.8 s') FROM djactor.worker WHERE pid IS NOT NULL}) eq 't' });
}

#
# Random pauses, so that each state and transition is met
#
srand(42);
my $slowest = 0;
my $missed = 0;
my @lingering;
for (1 .. 50)
{
	my $kind = rand;
	my $start;

	sleep($kind < 0.3 ? 0.2 + rand 0.2 : $kind < 0.7 ? 0.95 + rand 0.15 : rand 1.5);
	$seq++;
	$session->query("SELECT post(1, $seq, 1, 't.work', 5)");
	$start = time;
	$missed++ unless wait_until("message $seq is handled", sub { handled(1, $seq) }, 5);
	$slowest = time - $start if time - $start > $slowest;
	push @lingering, time - $start if $kind < 0.3;
}
is($missed, 0, '50 commits after random pauses are handled without polling');
# Without being rung a lingering worker would look again when it goes to sleep, after a second.
@lingering = sort { $a <=> $b } @lingering;
cmp_ok($lingering[ @lingering / 2 ], '<', 0.5, 'a lingering pool is rung, not found by chance');
note(sprintf 'slowest: %.0f ms from commit to seen', $slowest * 1000);

# Many at the same moment, into a pool that may be on its way to sleep
my @sessions = map { session($node, 'app', 'app') } 1 .. 4;
for my $round (1 .. 10)
{
	sleep 0.9 + rand 0.25;
	$sessions[$_]->start("SELECT post(10 + $_, $round, 1, 't.work', 5)") for 0 .. 3;
	$sessions[$_]->finish for 0 .. 3;
	$missed++ unless wait_until("round $round is handled", sub {
		$session->query("SELECT count(*) FROM ledger WHERE sender >= 10 AND seq = $round") eq '4' }, 5);
}
is($missed, 0, 'four senders at once are all heard, ten times');
$_->quit for @sessions;

#
# NOTIFY
#
my $listener = session($node, 'app', 'app');
sub notifications
{
	my $out = $listener->query('SELECT 1');

	return scalar(() = $out =~ /notification "djactor"/g);
}
$listener->query('LISTEN djactor');
asleep();
notifications();
$session->query("SELECT post(2, 1, 1, 't.work', 5)");
ok(wait_until('handled', sub { handled(2, 1) }, 5), 'a sleeping pool wakes');
is(notifications(), 1, 'the sender sent one NOTIFY djactor');
$session->query("SELECT post(2, 2, 1, 't.work', 5)");
ok(wait_until('handled', sub { handled(2, 2) }, 5), 'a lingering pool wakes');
is(notifications(), 0, 'without a NOTIFY');
asleep();
notifications();
$session->query("BEGIN; SELECT post(2, 3, 1, 't.work', 5); ROLLBACK");
is(notifications(), 0, 'a rollback notifies nobody');

# Steady load.  A machine that starves the senders for a second makes the pool sleep
# in between, rightly; so there are three tries.
my $count;
for my $try (1 .. 3)
{
	asleep();
	notifications();
	start_sender($node, 'app', 'app', id => 100 * $try + $_, pause => 0.002) for 1 .. 3;
	sleep 4;
	$count = notifications();
	stop_senders();
	last if $count <= 1;
}
cmp_ok($count, '<=', 1, 'no NOTIFY under steady load, but the first');
ok(wait_drained($node, 'app'), 'the load is handled');
check_ledger($node, 'app');

#
# By hand
#
asleep();
$node->safe_psql('app', q{
	BEGIN;
	ALTER TABLE djactor.message DISABLE TRIGGER sent;
	INSERT INTO sent VALUES (3, 1, 't.work', 'k1');
	INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('t.work', 'k1', '{"sender": 3, "seq": 1}');
	ALTER TABLE djactor.message ENABLE TRIGGER sent;
	COMMIT});
sleep 1;
ok(!handled(3, 1), 'a message that came without the trigger is not noticed');
$node->safe_psql('app', 'NOTIFY djactor');
ok(wait_until('handled', sub { handled(3, 1) }, 5), 'NOTIFY djactor by hand has it found');
$node->safe_psql('app', q{
	BEGIN;
	ALTER TABLE djactor.message DISABLE TRIGGER sent;
	INSERT INTO sent VALUES (3, 2, 't.work', 'k1');
	INSERT INTO djactor.message (actor_type, actor_key, payload) VALUES ('t.work', 'k1', '{"sender": 3, "seq": 2}');
	ALTER TABLE djactor.message ENABLE TRIGGER sent;
	COMMIT;
	NOTIFY djactor});
ok(wait_until('handled', sub { handled(3, 2) }, 5), 'again while the pool lingers');

#
# Two-phase commit
#
for my $state ('asleep', 'lingering')
{
	my $first = $state eq 'asleep' ? 1 : 3;

	asleep() if $state eq 'asleep';
	$session->query("BEGIN; SELECT post(4, $first, 1, 't.work', 5); PREPARE TRANSACTION 'kept'");
	$session->query("BEGIN; SELECT post(4, $first + 1, 1, 't.work', 5); PREPARE TRANSACTION 'undone'");
	if ($state eq 'asleep')
	{
		sleep 1.5;
		ok(!handled(4, $first), 'a prepared message is not handled');
		asleep();
	}
	$session->query("ROLLBACK PREPARED 'undone'");
	$node->safe_psql('app', "COMMIT PREPARED 'kept'");
	ok(wait_until('handled', sub { handled(4, $first) }, 5), "COMMIT PREPARED wakes a pool that is $state");
	ok(!handled(4, $first + 1), 'ROLLBACK PREPARED sends nothing');
}
asleep();
$session->query("BEGIN; SELECT post(4, 5, 1500, 't.work', 1500); PREPARE TRANSACTION 'flood'");
$session->query("COMMIT PREPARED 'flood'");
ok(wait_drained($node, 'app', 10), 'a prepared transaction to 1,500 mailboxes');

#
# Time
#
asleep();
$session->query(q{
	INSERT INTO sent VALUES (5, 1, 't.work', 'k1');
	SELECT djactor.send('t.work', 'k1', '{"sender": 5, "seq": 1}', deliver_at => clock_timestamp() + '3 s')});
sleep 0.5;
ok(!handled(5, 1), 'a delayed message is not handled at once');
ok(wait_until('handled', sub { handled(5, 1) }, 8), 'but when it is due, by a pool that slept');
$session->query(q{SELECT post(5, 2, 1, 't.work', 5, '{"fail": 3}')});
ok(wait_until('handled', sub { handled(5, 2) }, 8), 'retries come without polling');

check_ledger($node, 'app');
$session->quit;
$listener->quit;
$node->stop;
done_testing();
