# A scout is in nobody's way who needs its database for himself: a DROP DATABASE has it stop, even if it waits for a lock; one that
# fails has it come again. None comes to a database that was just created, as long as somebody may drop it at once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('in_the_way', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off', log_min_messages => 'debug1');
my ($dropper, $locker, $looker) = map { session($node, 'postgres') } 1 .. 3;

sub scouts
{
	my ($offset) = @_;

	return log_count($node, qr/starting background worker process "djactor scout"/, $offset);
}

# A scout that waits for a shared catalog, in that database.
sub scout_waits_in
{
	my ($database) = @_;
	my $session = session($node, $database);

	$session->query('SELECT 1');
	$locker->query('BEGIN; LOCK pg_authid');
	$session->query('CREATE EXTENSION IF NOT EXISTS djactor');
	$session->quit;
	# by a session that was there before
	return wait_until("a scout waits in $database", sub { $looker->query(qq{
		SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.datname = '$database' JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid AND a.datid = d.oid
		WHERE NOT l.granted AND l.relation = 'pg_authid'::regclass}) eq '1' }, 20);
}

# what these sessions look up is in their caches from now on
$node->safe_psql('postgres', 'CREATE DATABASE warm');
$dropper->query('DROP DATABASE warm');
$looker->query(q{SELECT count(*) FROM pg_locks l JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid JOIN pg_database d ON d.oid = a.datid});

new_app($node, $_) for qw(gone stays);
as_role($node, $_, 'app', q{SELECT post(1, 1, 2, 't.work', 2)}) for qw(gone stays);
ok(wait_drained($node, $_), "$_ is served") for qw(gone stays);

ok(scout_waits_in('gone'), 'a scout is in a database, and waits for a lock');
my $start = time;
$dropper->query('DROP DATABASE gone');
cmp_ok(time - $start, '<', 3, 'DROP DATABASE does not wait for it');
is($looker->query(q{SELECT count(*) FROM pg_database WHERE datname = 'gone'}), 0, '... and succeeds');
$locker->query('ROLLBACK');

# One that fails: somebody else is there.
my $guest = session($node, 'stays');
$guest->query('SELECT 1');
ok(scout_waits_in('stays'), 'a scout in another database');
my $offset = -s $node->logfile;
is(eval { $dropper->query('DROP DATABASE stays'); 1 }, undef, '... where DROP DATABASE fails');
like($@, qr/is being accessed by other users/, '... for somebody else');
$locker->query('ROLLBACK');
ok(wait_until('a scout', sub { scouts($offset) > 0 }, 8), '... another one comes at once');
as_role($node, 'stays', 'app', q{SELECT post(2, 1, 10, 't.work', 3)});
ok(wait_drained($node, 'stays'), '... and its mail is handled');
check_ledger($node, 'stays');
$guest->quit;

# New databases
ok(wait_until('no scout', sub { !process_ids($node, 'djactor scout') }), 'all scouts are back');
sleep 1.5;
$offset = -s $node->logfile;
for (1 .. 5)
{
	$dropper->query("CREATE DATABASE passing;\nDROP DATABASE passing");
}
sleep 2;
is(scouts($offset), 0, 'no scout comes to databases that are dropped at once, or after that');
is(log_count($node, qr/FATAL.*database .*does not exist/, $offset), 0, '... nor tries to');
$offset = -s $node->logfile;
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE stays OWNER app');
ok(wait_until('a scout', sub { scouts($offset) > 0 }), 'one comes to a copy that stays');
as_role($node, 'copy', 'app', q{SELECT post(3, 1, 10, 't.work', 3)});
ok(wait_drained($node, 'copy'), '... which is served');
$_->quit for $dropper, $locker, $looker;
is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$node->stop;
done_testing();
