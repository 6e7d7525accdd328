# The server's queue of notifications, which all of its sessions share, and which djactor only rings with.
#
# - A worker does not keep the queue from being emptied, neither asleep nor while it has no time to sleep.
# - An error while it reads the queue ends the worker, and another takes its place; one that cannot LISTEN does
#   not sleep, so it is not deaf. No mail waits for djactor.poll_interval, which is an hour here.
# - A queue that another session has let fill up (17 and later, where it can be made small) keeps nobody from sending and no
#   ask from being answered; turns that notify wait, and are not charged.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $small = `postgres --version` =~ / (\d+)/ && $1 >= 17;
my $node = new_server('notify', 'djactor.poll_interval' => '1h', 'djactor.max_workers' => 1, $small ? (max_notify_queue_pages => 256) : ());
my $seq = 0;

new_app($node, 'app');
$node->safe_psql('postgres', 'CREATE DATABASE other');

sub usage { return $node->safe_psql('postgres', 'SELECT pg_notification_queue_usage()') }
sub flood
{
	my ($database, $n, $channel) = @_;

	$channel //= 'flood';
	return $node->safe_psql($database, "SELECT pg_notify('$channel', repeat('x', 7900) || g) FROM generate_series(1, $n) g");
}
sub shown { return $node->safe_psql('app', qq{SELECT count(*) FROM djactor.worker WHERE $_[0]}) }

# sends, and has it handled without polling
sub works
{
	my ($name) = @_;

	$seq++;
	$node->safe_psql('app', "SELECT post(1, $seq, 1, 't.work', 1)");
	ok(wait_until('handled', sub { $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = 1 AND seq = $seq") eq '1' }, 20), $name);
}

# for more than the second that it lingers
sub asleep { ok(wait_until('asleep', sub { shown("state = 'idle' AND now() - since > '1.5 s'") }), 'the worker sleeps') }

works('a first message is handled');
asleep();
flood($_, 40) for 'other', 'app';
ok(wait_until('an empty queue', sub { usage() eq '0' }), 'a worker that sleeps lets the queue be emptied');
$node->safe_psql('app', q{SELECT post(2, 1, 400, 't.work', 4, '{"sleep": 0.01}')});
ok(wait_until('work', sub { shown('message_id IS NOT NULL') }), 'the worker has no time to sleep');
flood($_, 40) for 'other', 'app';
ok(wait_until('an empty queue', sub { usage() eq '0' }), '... and lets it be emptied all the same');
cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), '>', 20, '... while mail waits');
ok(wait_drained($node, 'app'), '... which is handled');

#
# What cannot be read
#
asleep();
my $offset = -s $node->logfile;
my ($pid) = worker_pids($node, 'app');
my $lock = session($node, 'app');
$lock->query('SELECT pg_advisory_lock(4715)');
$node->safe_psql('app', q{SELECT djactor.send('t.work', 'k0', '{"sender": 3, "seq": 1, "lock": 4715}'); INSERT INTO sent VALUES (3, 1, 't.work', 'k0')});
ok(wait_until('work', sub { shown('message_id IS NOT NULL') }), 'a handler runs');
flood('app', 60, 'djactor');	# from 19 on workers pass over other channels unread
truncate $_, 0 for glob $node->data_dir . '/pg_notify/*';
$lock->quit;
ok(wait_until('the error', sub { log_count($node, qr/(?:FATAL|ERROR):  could not access status of transaction 0/, $offset) }), 'the queue cannot be read');
works('what is sent then is handled');
isnt((worker_pids($node, 'app'))[0], $pid, '... by another worker');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message WHERE attempts + crashes > 0'), 0, '... and nobody is charged');
# the server forgets what nobody listens for when it is asked how full the queue is
ok(wait_until('a worker that sleeps', sub { usage(); shown("state = 'idle' AND now() - since > '1.5 s'") }), '... which comes to sleep in the end');
works('... and is woken');

# A table of another name, before the worker has lingered for its second: it cannot LISTEN.  Where the
# machine stalled and the worker was first, it is tried again with the next one.
ok(wait_until('the log', sub {
	($pid) = worker_pids($node, 'app');
	# by one statement, for a new session would take a part of the second
	$node->safe_psql('app', qq{
		SET statement_timeout = '${DjactorTest::PATIENCE}s';
		SELECT pg_terminate_backend($pid);
		DO \$\$
		BEGIN
			WHILE NOT EXISTS (SELECT FROM djactor.worker WHERE pid <> $pid AND state = 'idle' AND clock_timestamp() - since < '0.6 s') LOOP
				PERFORM pg_sleep(0.01);
			END LOOP;
			ALTER TABLE djactor.journal RENAME TO elsewhere;
		END \$\$});
	my $said = wait_until('the log', sub { log_count($node, qr/the tables of extension djactor are not as its script made them/) }, 3);
	$node->safe_psql('app', 'ALTER TABLE djactor.elsewhere RENAME TO journal') if !$said;
	return $said;
}), 'a worker that has not slept yet cannot LISTEN');
$node->safe_psql('app', 'ALTER TABLE djactor.elsewhere RENAME TO journal');
works('... and is woken all the same');

#
# A full queue
#
SKIP:
{
	skip 'the queue has room for 8 GB', 8 unless $small;
	my $listener = session($node, 'app', 'app');
	my $asks;

	as_role($node, 'app', 'app', q{
		CREATE FUNCTION tells(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
			$$ BEGIN PERFORM pg_notify('told', message::text); RETURN public.work(state, message); END $$;
		SELECT djactor.define_actor_type('t.tells', 'public.tells', max_attempts => 1)});
	$listener->query('LISTEN flood');
	$listener->query('BEGIN; SELECT 1');
	asleep();
	for my $n (20, 1)
	{
		1 while $node->psql('app', "SELECT pg_notify('flood', repeat('x', 7900) || g) FROM generate_series(1, $n) g") == 0;
	}
	works('a full queue: who sends is not concerned');
	$node->safe_psql('app', q{SELECT post(4, 1, 50, 't.tells', 5); SELECT djactor.send('t.work', 'k1', '{"sender": 5, "seq": 1}', wants_reply => true);
		INSERT INTO sent VALUES (5, 1, 't.work', 'k1')});
	ok(wait_until('the answer', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.reply') eq '1' }), '... who asks from outside is answered');
	# longer than the quick tries take
	ok(wait_until('the turns are tried again and again', sub {
		$node->safe_psql('app', q{SELECT max(put_offs) > 4 FROM djactor.message}) eq 't' }), 'turns that notify are tried again and again');
	is($node->safe_psql('app', q{SELECT count(*), max(attempts) FROM djactor.message}), '50|0', '... turns that notify wait, and are not charged');
	is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, '... nor given up');
	$listener->query('COMMIT');
	ok(wait_drained($node, 'app'), '... and are handled once there is room');
	$listener->quit;
}
check_ledger($node, 'app');
is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');

$node->stop;
done_testing();
