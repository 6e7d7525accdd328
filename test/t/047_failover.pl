# Contract 26, 27: a primary is lost under load and its clients go over to the standby; the old primary is rewound, follows, and takes
# over again; and the archive is recovered to a time and to an LSN in the midst of it. Ledger-checked each, with
# dead letters, timers, and mail that waits: nothing is lost, nothing is done twice, only what was recovered is held.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $one = new_server('one', Init => [ allows_streaming => 1, has_archiving => 1 ], 'djactor.max_workers' => 2,
	shared_buffers => '16MB', wal_log_hints => 'on', track_commit_timestamp => 'on', wal_keep_size => '1GB');

new_app($one, 'app');
define_work($one, 'app', 'app', 't.paused');
send_broken($one, 'app', 'app', 5);
start_ticking($one, 'app', 'app', '100 ms');
as_role($one, 'app', 'app', q{
	SELECT djactor.pause('t.paused');
	SELECT post(1, 1, 200, 't.paused', 20)});
ok(wait_until('dead letters', sub { $one->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter') eq '5' }), 'some messages are given up');

$one->backup('base');
my $two = PostgreSQL::Test::Cluster->new('two');
$two->init_from_backup($one, 'base', has_streaming => 1);
$two->append_conf('postgresql.conf', "archive_mode = off\n");
$two->start;

sub synchronous
{
	my ($primary, $standby) = @_;

	$primary->append_conf('postgresql.conf', "synchronous_standby_names = '" . $standby->name . "'\n");
	$primary->reload;
	return wait_until('synchronous', sub { $primary->safe_psql('postgres', 'SELECT sync_state FROM pg_stat_replication') eq 'sync' });
}

sub alone
{
	my ($node) = @_;

	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
	$node->reload;
}

sub load
{
	my ($node, $name) = @_;
	my $before = $node->safe_psql('app', 'SELECT count(*) FROM ledger');

	ok(wait_until('mail', sub { $node->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 100 }), $name);
}

my $ticks = q{SELECT (state->>'ticks')::int FROM djactor.actor WHERE actor_type = 't.ticks'};
sub ticks
{
	my ($node, $name) = @_;
	my $before = $node->safe_psql('app', $ticks);

	ok(wait_until('a tick', sub { $node->safe_psql('app', $ticks) > $before }), "$name: the timer ticks");
	is($node->safe_psql('app', q{SELECT turns - (state->>'ticks')::int FROM djactor.actor WHERE actor_type = 't.ticks'}), 0, "$name: ... one turn each");
	is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 5, "$name: dead letters are there, and no others");
}

#
# Load, and moments to go back to
#
ok(synchronous($one, $two), 'a synchronous standby');
start_sender($one, 'app', 'app', id => 10 + $_, fail => 50, pause => 0.01, or => $two) for 1 .. 2;
load($one, 'there is load');
my $lsn = $one->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
load($one, 'before and after an LSN');
# a moment at which no sender commits: a commit has its time a little before it has its place in the WAL
my $time = $one->safe_psql('app', 'BEGIN; LOCK TABLE sent IN EXCLUSIVE MODE; SELECT clock_timestamp(); COMMIT');
load($one, 'before and after a time');
my $wal = $one->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
load($one, 'and it goes on');
ok(wait_until('archived', sub { $one->safe_psql('postgres', "SELECT last_archived_wal >= '$wal' FROM pg_stat_archiver") eq 't' }), 'WAL is archived');

#
# The primary is lost, and comes back as the standby
#
$one->stop('immediate');
$two->promote;
load($two, 'the clients go over to the standby, which works for them');
is($two->safe_psql('app', 'SELECT djactor.held()'), 'f', '... and is not held');
ticks($two, 'promoted');

my $conf = $one->data_dir . '/postgresql.conf';
my $own = slurp_file($conf);
# before 16 pg_rewind learns of a promotion from the next checkpoint
$two->safe_psql('postgres', 'CHECKPOINT');
command_ok([ 'pg_rewind', '-D', $one->data_dir, '--source-server', $two->connstr('postgres'), '--no-sync' ], 'the old primary is rewound');
unlink $conf;
append_to_file($conf, $own);
$one->append_conf('postgresql.conf', "archive_mode = off\n");
$one->enable_streaming($two);
$one->set_standby_mode;
$one->start;
ok(synchronous($two, $one), '... and follows');
load($two, '... under load');
my ($status, undef, $error) = $one->psql('app', q{SELECT djactor.pause('t.work')});
like($error, qr/read-only|recovery/, '... as a standby, which takes no commands');
is($one->safe_psql('app', q{SELECT count(*) > 0, count(*) FILTER (WHERE actor_type = 't.paused') FROM djactor.mailbox}), 't|20', '... and shows the mailboxes');

#
# Back, in an orderly way
#
alone($one);
$two->stop('fast');
$one->promote;
load($one, 'clients go back, too');
is($one->safe_psql('app', 'SELECT djactor.held()'), 'f', '... and it is not held');
ticks($one, 'back');
my $known = stop_senders();
my $truth = q{SELECT count(*) FROM sent WHERE pg_xact_commit_timestamp(xmin) <= };
$one->safe_psql('app', q{SELECT djactor.resume('t.paused')});
as_role($one, 'app', 'app', q{SELECT djactor.stop_actor('t.ticks', 'k')});
ok(wait_drained($one, 'app'), 'all mail is handled');
check_ledger($one, 'app', $known);

#
# What was archived, at two moments
#
for my $target ([ lsn => $lsn ], [ time => $time ])
{
	my ($what, $moment) = @$target;
	my $copy = PostgreSQL::Test::Cluster->new("to_$what");

	$copy->init_from_backup($one, 'base', has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf', "archive_mode = off\nrecovery_target_$what = '$moment'\nrecovery_target_timeline = 'current'\n"
		  . "recovery_target_action = 'promote'\n");
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	ok(wait_until('held', sub { log_count($copy, qr/holds the mail of database "app"/) }), "$what: it is held");
	if ($what eq 'time')
	{
		is($copy->safe_psql('app', 'SELECT count(*) FROM sent'), $one->safe_psql('app', "$truth '$time'"),
			'time: it has exactly what was committed by then');
	}
	is($copy->safe_psql('app', q{
		SELECT count(*) FROM sent s WHERE (SELECT count(*) FROM ledger l WHERE l.sender = s.sender AND l.seq = s.seq)
			+ (SELECT count(*) FROM djactor.message m
				WHERE (m.payload->>'sender')::int = s.sender AND (m.payload->>'seq')::int = s.seq) <> 1}), 0,
		"$what: each message was handled, or waits");
	my $ticked = $copy->safe_psql('app', $ticks);
	sleep 0.5;
	is($copy->safe_psql('app', $ticks), $ticked, "$what: no timer fires");
	as_role($copy, 'app', 'app', q{SELECT djactor.resume(); SELECT djactor.resume('t.paused')});
	ticks($copy, "$what, resumed");
	ok(wait_until('mail', sub { $copy->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE kind <> 'timer'}) eq '0' }), "$what: what waited is handled");
	as_role($copy, 'app', 'app', q{SELECT djactor.stop_actor('t.ticks', 'k')});
	check_ledger($copy, 'app');
	$copy->stop('immediate');
}
is(log_count($_, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed') for $one, $two;
$one->stop('immediate');
done_testing();
