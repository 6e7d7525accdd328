# Contract 26, 27: copies of one server that works under load, ledger-checked each.
#
# - A synchronous standby: what workers commit is on it; while it is down workers wait and nothing is lost; a wait
#   that is cancelled, and a worker that is ended in it, lose nothing and do nothing twice.
# - The primary is lost: the standby, promoted, runs on, not held; what a client was told is committed is there.
# - A server started from a base backup beside it is held, and so is one recovered to a point in time; state, mailboxes and
#   user tables agree in both, and after resume() each handles exactly what was committed by then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $primary = new_server('primary', Init => [ allows_streaming => 1, has_archiving => 1 ], 'djactor.max_workers' => 2,
	shared_buffers => '16MB', max_wal_senders => 5);

new_app($primary, 'app');
define_work($primary, 'app', 'app', 't.paused');
$primary->safe_psql('app', q{
	SELECT djactor.pause('t.paused');
	SELECT post(1, 1, 300, 't.paused', 30);
	SELECT djactor.send('t.work', 'later', '{"sender": 2, "seq": 1}', deliver_at => clock_timestamp() + '3 s');
	INSERT INTO sent VALUES (2, 1, 't.work', 'later')});

# Backup under load
start_sender($primary, 'app', 'app', id => 10 + $_, fail => 50, pause => 0.01) for 1 .. 2;
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "archive_mode = off\n");
$standby->start;
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'\n");
$primary->reload;
ok(wait_until('synchronous', sub { $primary->safe_psql('postgres', q{SELECT sync_state FROM pg_stat_replication}) eq 'sync' }), 'a synchronous standby');
my $before = $primary->safe_psql('app', 'SELECT count(*) FROM ledger');
ok(wait_until('turns', sub { $primary->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 100 }), 'mail is handled with it');

#
# The standby is away
#
my $waiting = q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type = };
$standby->stop('immediate');
# by now the workers may have handled all that the senders could commit
$primary->safe_psql('app', "SET synchronous_commit = local; SELECT post(4, 1, 10, 't.work', 5)");
ok(wait_until('workers wait', sub { $primary->safe_psql('postgres', "$waiting 'djactor worker' LIMIT 1") }), 'without it workers wait in their commit');
my $offset = -s $primary->logfile;
my $seq = 1;
for my $how (qw(cancel terminate))
{
	my $pid;

	# the senders wait as well: so this one's commit does not
	$primary->safe_psql('app', "SET synchronous_commit = local; SELECT post(5, $seq, 10, 't.work', 5)");
	$seq += 10;
	$pid = wait_until('a worker waits', sub { $primary->safe_psql('postgres', "$waiting 'djactor worker' LIMIT 1") });
	ok($pid, "$how: a worker waits");
	$primary->safe_psql('postgres', "SELECT pg_${how}_backend($pid)");
	ok(wait_until("$how", sub { log_count($primary, qr/\[$pid\] WARNING:  canceling (?:the )?wait for synchronous replication/, $offset) }),
		"$how: that ends its wait");
}
$primary->safe_psql('app', "SET synchronous_commit = local; SELECT post(5, $seq, 10, 't.work', 5)");
ok(wait_until('workers wait', sub { $primary->safe_psql('postgres', "$waiting 'djactor worker' LIMIT 1") }), 'and a worker goes on to the next');
is(log_count($primary, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$standby->start;
ok(wait_until('nobody waits', sub { $primary->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'}) eq '0'
	|| $primary->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 500 }), 'with the standby back all goes on');
is($primary->safe_psql('app', 'SELECT count(*) FROM djactor.message WHERE crashes > 0'), 0, 'nobody was charged a crash');

#
# A moment to go back to
#
$before = $primary->safe_psql('app', 'SELECT count(*) FROM ledger');
ok(wait_until('turns', sub { $primary->safe_psql('app', 'SELECT count(*) FROM ledger') > $before }), 'mail is handled');
my $target = $primary->safe_psql('postgres', 'SELECT pg_create_restore_point($$before$$)');
ok(wait_until('turns', sub { $primary->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 200 }), '... and after the restore point');
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
ok(wait_until('archived', sub { $primary->safe_psql('postgres', "SELECT last_archived_wal >= pg_walfile_name('$target') FROM pg_stat_archiver") eq 't' }), 'its WAL is archived');

#
# The primary is lost, with all its clients in the middle of things
#
$primary->stop('immediate');
my $known = stop_senders();
$standby->promote;

sub goes_on
{
	my ($node, $name) = @_;

	ok(wait_until('mail', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_type <> 't.paused'}) eq '0' }),
		"$name: what waited is handled");
	is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 300, "$name: what was paused is paused");
	$node->safe_psql('app', q{SELECT djactor.resume('t.paused')});
	ok(wait_drained($node, 'app'), "$name: until it is resumed");
	$node->safe_psql('app', q{SELECT post(3, 1, 100, 't.work', 20)});
	ok(wait_drained($node, 'app'), "$name: new mail too");
}

# beside it, at the same time: a copy from the base backup, and one of the restore point
my %copy;
for my $name ('backup', 'pitr')
{
	$copy{$name} = PostgreSQL::Test::Cluster->new($name);
	$copy{$name}->init_from_backup($primary, 'base', $name eq 'pitr' ? (has_restoring => 1, standby => 0) : ());
	$copy{$name}->append_conf('postgresql.conf', "archive_mode = off\nsynchronous_standby_names = ''\n"
		  . ($name eq 'pitr' ? "recovery_target_name = 'before'\nrecovery_target_action = 'promote'\n" : ''));
	$copy{$name}->start;
	$copy{$name}->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
}
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$standby->reload;
is($standby->safe_psql('app', 'SELECT djactor.held()'), 'f', 'the promoted standby is not held');
goes_on($standby, 'standby');
check_ledger($standby, 'app', $known);

my %handled;
for my $name (sort keys %copy)
{
	ok(wait_until('the log', sub { log_count($copy{$name}, qr/holds the mail of database "app"/) }), "$name: is held, and the log says so");
	$handled{$name} = $copy{$name}->safe_psql('app', 'SELECT count(*) FROM ledger');
	is($copy{$name}->safe_psql('app', 'SELECT djactor.held()'), 't', "$name: is held while the other runs");
}
sleep 1;
cmp_ok($handled{pitr}, '>', $handled{backup}, 'one is of a later moment');
for my $name (sort keys %copy)
{
	is($copy{$name}->safe_psql('app', 'SELECT count(*) FROM ledger'), $handled{$name}, "$name: nothing runs");
	is($copy{$name}->safe_psql('app', q{
		SELECT count(*) FROM sent s WHERE (SELECT count(*) FROM ledger l WHERE l.sender = s.sender AND l.seq = s.seq)
			+ (SELECT count(*) FROM djactor.message m
				WHERE (m.payload->>'sender')::int = s.sender AND (m.payload->>'seq')::int = s.seq) <> 1}), 0,
		"$name: each message that was committed by then was handled, or waits");
	as_role($copy{$name}, 'app', 'app', 'SELECT djactor.resume()');
	goes_on($copy{$name}, $name);
	check_ledger($copy{$name}, 'app');
	$copy{$name}->stop;
}
$standby->stop;
done_testing();
