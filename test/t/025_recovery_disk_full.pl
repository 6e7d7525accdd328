# Contract 6, 12: a full disk, ledger-checked.
#
# - For tables: senders get the error, workers wait, no message is charged an attempt, and all goes on once there is room.
# - For WAL: the server goes down, by itself; with room again it starts, and nothing is lost and nothing done twice.
# - For the workers' marker files: they work without, and say so once; a crash is not charged, but nothing is lost.
#
# The server runs under full_disk.c, which makes the disk full for the paths that a file names.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/full_disk.so';

system('cc', '-shared', '-fPIC', '-o', $library, "$FindBin::RealBin/full_disk.c", '-ldl') == 0
  or plan skip_all => 'there is no C compiler';

my $flag = PostgreSQL::Test::Utils::tempdir_short() . '/full';
my $node = new_server('disk_full', 'djactor.max_workers' => 3, 'djactor.max_crashes' => 1,
	wal_recycle => 'off', min_wal_size => '32MB', max_wal_size => '64MB', wal_init_zero => 'on', autovacuum => 'off');

sub start
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{FULL_DISK} = $flag;

	return $node->start(fail_ok => 1);
}

sub fill
{
	my ($path) = @_;

	append_to_file("$flag.new", "$path\n");
	rename "$flag.new", $flag;
}

$node->stop;
start();
new_app($node, 'app');
$node->safe_psql('app', 'ALTER SYSTEM SET checkpoint_timeout = 3600');

#
# Tables
#
my $database = 'base/' . $node->safe_psql('app', 'SELECT oid FROM pg_database WHERE datname = current_database()') . '/';
my $paused = q{SELECT djactor.pause('t.work'); SELECT post(1, 1, 20000, 't.work', 50)};

$node->safe_psql('app', $paused);
# A SELECT sets bits in the visibility map from 19 on: so that ours need no room, the maps are there.
$node->safe_psql('app', 'VACUUM');
start_sender($node, 'app', 'app', id => 10 + $_, keys => 20, pause => 0.02) for 1 .. 2;
my $offset = -s $node->logfile;
fill($database);
$node->safe_psql('app', q{SELECT djactor.resume('t.work')});
ok(wait_until('workers and senders meet it', sub {
	log_count($node, qr/could not extend file/, $offset) > 3
	  && log_count($node, qr/(?:tried again|could not record the failure).*could not extend file/, $offset) }), 'tables: the disk is full for workers');
sleep 1.5;
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message WHERE attempts > 0'), 0, 'tables: no message is charged an attempt');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, '... nor given up');
cmp_ok(log_count($node, qr/could not extend file.*/, $offset), '<', 2000, '... and workers do not spin');
unlink $flag;
my $known = stop_senders();
ok(wait_drained($node, 'app'), 'tables: with room again all is handled');
check_ledger($node, 'app', $known);

#
# WAL
#
for my $round (1 .. 3)
{
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');

	start_sender($node, 'app', 'app', id => 20 + $_ + 10 * $round, keys => 20, big => 400) for 1 .. 2;
	ok(wait_until('load', sub { $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender > 20 + 10 * $round") > 500 }), "WAL, round $round: there is load");
	$offset = -s $node->logfile;
	fill('pg_wal');
	# more than the segments at hand will take
	ok(wait_until('the server meets it', sub {
		$node->psql('app', 'BEGIN; CREATE TABLE waste AS SELECT repeat(md5(g::text), 20) FROM generate_series(1, 30000) g; ROLLBACK');
		log_count($node, qr/No space left on device/, $offset) > 0 }), "WAL, round $round: the disk is full");
	ok(wait_until('down or restarted', sub { log_count($node, qr/PANIC|terminating any other active server processes|database system is shut down/, $offset) > 0 }),
		"WAL, round $round: the server cannot go on");
	unlink $flag;
	# it may be down, or have come up by itself just now
	ok(wait_until('up', sub {
		unless (kill 0, $postmaster)
		{
			unlink $node->data_dir . '/postmaster.pid';
			$node->{_pid} = undef;
			start();
			($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
		}
		$node->safe_psql('app', 'SELECT 1') }), "WAL, round $round: with room again it runs");
	$known = stop_senders();
	ok(wait_drained($node, 'app'), "WAL, round $round: all is handled");
	check_ledger($node, 'app', $known);
	is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, "WAL, round $round: no dead letters");
}

#
# Markers
#
$offset = -s $node->logfile;
fill('pg_stat_tmp/djactor');
$node->stop('fast');
start();
$node->safe_psql('app', q{SELECT post(2, 1, 500, 't.work', 20)});
ok(wait_drained($node, 'app'), 'markers: workers work without');
is(log_count($node, qr/could not create file "pg_stat_tmp\/djactor.*No space left/, $offset), 1, 'markers: one line says so');
$node->safe_psql('app', q{SELECT post(3, 1, 200, 't.work', 20, '{"sleep": 0.01}')});
ok(wait_until('busy', sub { $node->safe_psql('app', q{SELECT count(*) FROM djactor.worker WHERE message_id IS NOT NULL}) > 0 }), 'markers: a handler runs');
kill 'KILL', worker_pids($node, 'app');
ok(wait_until('the server restarts', sub { log_count($node, qr/all server processes terminated; reinitializing/, $offset) > 0
	&& $node->safe_psql('app', 'SELECT 1') }), 'markers: a worker is killed');
ok(wait_drained($node, 'app'), 'markers: all is handled');
check_ledger($node, 'app');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'markers: nobody is charged');
is(log_count($node, qr/terminated by signal (?!9|6)|TRAP:/), 0, 'nothing else crashed, by SIGBUS say');

unlink $flag;
$node->stop;
done_testing();
