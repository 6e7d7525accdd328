# pg_cancel_backend() and pg_terminate_backend() on workers, and the launcher's end:
#
# - A cancelled worker stays, a terminated one is replaced, idle or busy.
# - The message that was under way is handled later; no attempt is used up (contract 12:
#   class 57 is nobody's fault).
# - A worker that is terminated while it logs in is replaced at once. One that is cancelled goes on, so nobody waits for another one.
# - A worker that is cancelled between turns goes on at once: that is no trouble of the server, after which it would rest.
# - A scout that is cancelled goes on.
# - A launcher that is terminated comes back, and what needs it meanwhile is done then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('terminate', 'djactor.max_workers' => 3, 'djactor.idle_timeout' => '2s');

new_app($node, 'app');
define_work($node, 'app', 'app', 't.once', 'batch_size => 1');

sub resident
{
	my ($resident) = grep { $_->[3] eq 't' } workers($node, 'app');

	return $resident ? $resident->[0] : undef;
}

sub same_pid { my ($pid) = @_; return sub { (resident() // 0) == $pid } }
sub other_pid { my ($pid) = @_; return sub { (resident() // $pid) != $pid } }

my $sender = 0;
sub works
{
	my ($name) = @_;

	$sender++;
	$node->safe_psql('app', "SELECT post($sender, 1, 3, 't.work', 3)");
	ok(wait_drained($node, 'app'), $name);
}

works('mail is handled');
for my $state ('lingering', 'asleep')
{
	my $pid;

	sleep 1.5 if $state eq 'asleep';
	$pid = resident();
	$node->safe_psql('app', "SELECT pg_cancel_backend($pid)");
	works("handled after a cancel while $state");
	is(resident(), $pid, '... by the worker that was cancelled');
	sleep 1.5 if $state eq 'asleep';
	$node->safe_psql('app', "SELECT pg_terminate_backend($pid)");
	works("handled after a terminate while $state");
	isnt(resident(), $pid, '... by another worker');
	$pid = resident();
	$node->safe_psql('app', "SELECT pg_terminate_backend($pid)");
	ok(wait_until('a new resident', other_pid($pid)), '... which comes without being called for');
}

#
# In the middle of a handler
#
for my $type ('t.work', 't.once')
{
	for my $how ('cancel', 'terminate')
	{
		my $first = 100 * ++$sender;
		my ($pid) = wait_until('a resident', \&resident);
		my $offset;

		# some messages of the batch before and after the one that sleeps
		$node->safe_psql('app', qq{
			BEGIN;
			SELECT post($sender, 1, 3, '$type', 1);
			SELECT post($sender, 4, 1, '$type', 1, '{"sleep": 6}');
			SELECT post($sender, 5, 3, '$type', 1);
			COMMIT});
		$pid = wait_until('the handler sleeps', sub {
			$node->safe_psql('app', qq{
				SELECT w.pid FROM djactor.worker w JOIN djactor.message m ON m.id = w.message_id
				JOIN pg_stat_activity a ON a.pid = w.pid
				WHERE m.payload ? 'sleep' AND a.wait_event = 'PgSleep'}) });
		ok($pid, "$type: the handler sleeps");
		my ($signalled, $done) = split /\|/, $node->safe_psql('app', "SELECT clock_timestamp(), pg_${how}_backend($pid)");
		is($done, 't', "... and is ${how}ed");
		# seen while it waits for being tried again, or is: in a transaction that has begun since
		ok(wait_until('rolled back', sub {
			$node->safe_psql('app', qq{SELECT count(*) FROM djactor.message m WHERE payload ? 'sleep' AND NOT EXISTS
				(SELECT FROM djactor.worker w JOIN pg_stat_activity a USING (pid)
					WHERE w.message_id = m.id AND a.xact_start < '$signalled')}) eq '1' }, 10),
			'... the message waits again');
		is($node->safe_psql('app', q{SELECT max(attempts) FROM djactor.message}), 0, '... no attempt is used up');
		ok(wait_drained($node, 'app'), '... all are handled');
		is($node->safe_psql('app', q{SELECT sum(failures) FROM djactor.actor}), 0, '... and no failure is counted');
		if ($how eq 'cancel')
		{
			is(scalar(grep { $_ == $pid } worker_pids($node, 'app')), 1, '... the worker stays');
		}
	}
}

#
# In the middle of the login
#
{
	my $session = session($node, 'app');
	my $set_delay = sub {
		my ($seconds) = @_;
		my $from = -s $node->logfile;

		$session->query("ALTER SYSTEM SET post_auth_delay = '$seconds s'");
		$session->query('SELECT pg_reload_conf()');
		wait_until('the new setting', sub { log_since($node, $from) =~ /parameter "post_auth_delay" changed/ });
	};
	my %ended = map { $_->[0] => 1 } workers($node, 'app');
	my $began;

	# one that is told before it sleeps ends only afterwards
	$set_delay->(1);
	$began = time;
	$session->query('SELECT pg_terminate_backend(pid) FROM djactor.worker WHERE pid IS NOT NULL');
	for (1 .. 4)
	{
		my $pid = wait_until('a worker that logs in', sub {
			my ($new) = grep { /^\d+$/ && !$ended{$_} } split /\n/, $session->query('SELECT pid FROM djactor.worker WHERE pid IS NOT NULL');

			return $new;
		});

		$ended{$pid} = 1;
		$session->query("SELECT pg_terminate_backend($pid)");
	}
	$set_delay->(0);
	$session->query('SELECT pg_terminate_backend(pid) FROM djactor.worker WHERE pid IS NOT NULL');
	works('handled after four workers were terminated while they logged in');
	cmp_ok(time - $began, '<', 11, '... each of which was replaced at once: that was no failure to log in');
	$session->quit;
}

# $looker was there before somebody locked anything
my ($looker, $locker, $holder) = map { session($node, 'app') } 1 .. 3;

# a worker that waits for a lock on this catalog
sub waits_for
{
	my ($catalog) = @_;

	return $looker->query(qq{SELECT w.pid FROM djactor.worker w JOIN pg_locks l USING (pid) WHERE NOT l.granted AND l.classid = '$catalog'::regclass
		UNION SELECT w.pid FROM djactor.worker w JOIN pg_locks l USING (pid) WHERE NOT l.granted AND l.relation = '$catalog'::regclass});
}
for ('pg_db_role_setting', 'pg_extension')
{
	waits_for($_);
}
define_work($node, 'app', 'app', 't.long', q{handler_timeout => '10 min'});
ok(wait_until('the resident alone', sub { workers($node, 'app') == 1 }), 'one worker');
{
	my $logs_in;

	$holder->query('SELECT pg_advisory_lock(4715)');
	$node->safe_psql('app', q{INSERT INTO sent VALUES (50, 1, 't.long', 'long');
		SELECT djactor.send('t.long', 'long', '{"sender": 50, "seq": 1, "lock": 4715}')});
	ok(wait_until('a long turn', sub { $looker->query(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4715 AND NOT granted}) }),
		'the worker is in a long turn');
	$looker->query(q{INSERT INTO sent VALUES (50, 2, 't.long', 'fresh')});
	$locker->query('BEGIN; LOCK pg_db_role_setting');
	$looker->query(q{SELECT djactor.send('t.long', 'fresh', '{"sender": 50, "seq": 2}')});
	$logs_in = wait_until('a worker that logs in', sub { waits_for('pg_db_role_setting') });
	like($logs_in, qr/^\d+$/, '... another one logs in');
	is($looker->query("SELECT pg_cancel_backend($logs_in)"), 't', '... and is cancelled');
	$locker->query('ROLLBACK');
	ok(wait_until('a turn', sub { $node->safe_psql('app', q{SELECT 1 FROM djactor.actor WHERE actor_key = 'fresh'}) }), '... mail is handled beside the long turn');
	is($node->safe_psql('app', q{SELECT pid FROM ledger WHERE actor_key = 'fresh'}), $logs_in, '... by that worker');
	$holder->query('SELECT pg_advisory_unlock(4715)');
	ok(wait_drained($node, 'app'), '... which ends');
}

#
# Between two turns
#
ok(wait_until('the resident alone', sub { workers($node, 'app') == 1 }), 'one worker');
{
	my $offset = -s $node->logfile;
	my $rested = 0;
	my $pid;

	# it waits before its first turn; a worker that is called for help, too, before it can have any
	$locker->query('BEGIN; ALTER EXTENSION djactor UPDATE');
	$looker->query(q{INSERT INTO sent VALUES (51, 1, 't.work', 'between'); SELECT djactor.send('t.work', 'between', '{"sender": 51, "seq": 1}')});
	$pid = wait_until('a worker that waits', sub { my ($first) = split /\n/, waits_for('pg_extension'); $first });
	like($pid, qr/^\d+$/, 'a worker waits between two turns');
	$looker->query("SELECT pg_cancel_backend($pid)");
	ok(wait_until('the cancel', sub { log_count($node, qr/canceling statement due to user request/, $offset) }), '... and is cancelled');
	ok(wait_until('a second try', sub {
		my $waits = $looker->query("SELECT coalesce(wait_event_type, 'none') FROM pg_stat_activity WHERE pid = $pid");

		$rested ||= $waits eq 'Extension';
		return $waits eq 'Lock' }), '... it tries again');
	ok(!$rested, '... without a rest');
	$locker->query('ROLLBACK');
	works('the lock is gone: mail is handled');
}

#
# A scout
#
{
	my $offset = -s $node->logfile;
	my $scout;

	$locker->query('BEGIN; LOCK pg_db_role_setting');
	$looker->query('CREATE EXTENSION IF NOT EXISTS djactor');
	$scout = wait_until('a scout', sub { $looker->query(q{SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'pg_db_role_setting'::regclass}) });
	like($scout, qr/^\d+$/, 'a scout logs in');
	$looker->query("SELECT pg_cancel_backend($scout)");
	$locker->query('ROLLBACK');
	ok(wait_until('no scout', sub { !process_ids($node, 'djactor scout') && !$looker->query("SELECT 1 FROM pg_stat_get_activity($scout)") }), '... is cancelled, and ends');
	is(log_count($node, qr/canceling statement due to user request/, $offset), 0, '... when it has done what it has come for');
}
$_->quit for $looker, $locker, $holder;

#
# Under load
#
start_sender($node, 'app', 'app', id => 1000 + $_, types => [ 't.work', 't.once' ], pause => 0.002) for 1 .. 3;
for (1 .. 40)
{
	my $what = rand() < 0.5 ? 'cancel' : 'terminate';

	sleep rand 0.25;
	$node->safe_psql('app', "SELECT pg_${what}_backend(pid) FROM djactor.worker WHERE pid IS NOT NULL ORDER BY random() LIMIT 1");
	# The launcher, too
	$node->safe_psql('app', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'djactor launcher'})
	  if $_ % 13 == 0;
}
my $known = stop_senders();
ok(wait_drained($node, 'app'), 'all mail is handled after 40 cancels and terminates under load');
is($node->safe_psql('app', 'SELECT sum(failures) FROM djactor.actor'), 0, 'none counted as a failure');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no dead letters');
check_ledger($node, 'app', $known);

#
# The launcher
#
my ($launcher) = wait_until('a launcher', sub { (process_ids($node, 'djactor launcher'))[0] });
my $pid = wait_until('a resident', \&resident);
kill 'TERM', $launcher;
ok(wait_until('the launcher comes back', sub {
	my @now = process_ids($node, 'djactor launcher');
	@now == 1 && $now[0] != $launcher }, 30), 'a launcher that got SIGTERM comes back');
works('workers go on meanwhile');
is(resident(), $pid, 'the same ones');
$node->safe_psql('app', "SELECT pg_terminate_backend($pid)");
works('the new launcher replaces workers that its predecessor started');
($launcher) = process_ids($node, 'djactor launcher');
$node->safe_psql('app', "SELECT pg_terminate_backend($launcher), pg_terminate_backend(pid) FROM djactor.worker");
works('launcher and workers terminated at once');
$node->safe_psql('app', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'djactor launcher'");
works('a launcher that is cancelled goes on');
ok(wait_until('at most the resident', sub { workers($node, 'app') <= 1 }), 'no worker is left over');

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$node->stop;
done_testing();
