# Scouts, which look at a database and say what is to be served there.
#
# - One that fails is sent again, also if the one before it came to its end, to that database only; not at once, though it had
#   something to say.
# - None is sent as long as there is nothing new to see, though a transaction keeps what it would mend.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('scouts', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off', log_min_messages => 'debug1');

new_app($node, 'app');
as_role($node, 'app', 'app', q{SELECT djactor.send('t.work', 'k')});
ok(wait_drained($node, 'app'), 'the database is served');

# The scout that is there, or that comes.
sub scout
{
	my ($seconds) = @_;
	my $pid;

	wait_until('a scout', sub { ($pid) = process_ids($node, 'djactor scout'); $pid }, $seconds);
	return $pid;
}

# Waits until one needs a table that somebody else has locked.
sub waits_for
{
	my ($table) = @_;

	return wait_until("it waits for $table", sub {
		$node->safe_psql('app', qq{
			SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
			WHERE backend_type = 'djactor scout' AND NOT granted AND relation = 'djactor.$table'::regclass}) });
}

# How many have been sent since the log had that length.
sub sent
{
	my ($offset) = @_;

	return log_count($node, qr/starting background worker process "djactor scout"/, $offset);
}

# One is made to wait for a lock, and ended.
my $update = session($node, 'app');
$update->query('BEGIN');
$update->query('ALTER EXTENSION djactor UPDATE');
$node->safe_psql('app', 'CREATE EXTENSION IF NOT EXISTS djactor');
my $failed = scout();
ok($failed, 'a scout comes where one has been before');
my $offset = -s $node->logfile;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($failed)");
ok(wait_until('it is gone', sub { !grep { $_ == $failed } process_ids($node, 'djactor scout') }), 'it fails');
ok(scout(), 'another one is sent');
$update->query('ROLLBACK');
ok(wait_until('no scout', sub { !process_ids($node, 'djactor scout') }), 'it comes to its end');
sleep 1;
is(sent($offset), 1, '... and none is sent to other databases');

# A marker of a copy without mail, which a scout would delete, but somebody has already
$update->query('BEGIN');
$update->query('ALTER EXTENSION djactor UPDATE');
$node->safe_psql('app', "COPY djactor.home FROM STDIN;\n123\t1\tx\t0\n\\.\n");
ok(scout(), 'a marker: a scout comes, and waits');
my $sender = session($node, 'app');
$sender->query('BEGIN');
$sender->query(q{SELECT djactor.send('t.work', 'k')});
$offset = -s $node->logfile;
$update->query('ROLLBACK');
sleep 3;
cmp_ok(sent($offset), '<=', 1, 'a row that somebody keeps locked does not call for scout after scout');
$sender->query('COMMIT');
ok(wait_drained($node, 'app'), 'once he is done, all goes on');

# One that has deleted such a marker, and fails before its commit
$update->query('BEGIN');
$update->query('ALTER EXTENSION djactor UPDATE');
$node->safe_psql('app', "COPY djactor.home FROM STDIN;\n123\t1\tx\t0\n\\.\n");
$failed = scout();
$sender->query('BEGIN');
$sender->query('LOCK TABLE djactor.home IN SHARE MODE');
$update->query('ROLLBACK');
ok(waits_for('home'), 'a marker: a scout comes');
$update->query('BEGIN');
$update->query('LOCK TABLE djactor.actor_type');
$sender->query('ROLLBACK');
ok(waits_for('actor_type'), '... deletes it, and would see to the types');
$offset = -s $node->logfile;
$node->safe_psql('postgres', "SELECT pg_terminate_backend($failed)");
ok(wait_until('it is gone', sub { !grep { $_ == $failed } process_ids($node, 'djactor scout') }), 'it fails');
sleep 3;
is(sent($offset), 0, 'the next one is not sent at once');
ok(scout(), '... but a while later');
$update->query('ROLLBACK');
ok(wait_until('no scout', sub { !process_ids($node, 'djactor scout') }), 'it comes to its end');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.home WHERE system_identifier = 0'), 0, '... and the marker is gone');

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$_->quit for $update, $sender;
$node->stop;
done_testing();
