# A database with mail that nobody can connect to, since it was closed or its DROP was cut short: the launcher does not try
# to serve it, over and over. When it is open again its mail is handled.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('closed', 'djactor.max_workers' => 2, fsync => 'off');
my %how = (
	closed => [ 'ALTER DATABASE closed ALLOW_CONNECTIONS false', 'ALTER DATABASE closed ALLOW_CONNECTIONS true' ],
	broken => [ q{UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'}, q{UPDATE pg_database SET datconnlimit = -1 WHERE datname = 'broken'} ]);

for my $database (sort keys %how)
{
	my $offset;

	new_app($node, $database);
	as_role($node, $database, 'app', q{SELECT djactor.pause('t.work'); SELECT post(1, 1, 3, 't.work', 3);
		INSERT INTO sent VALUES (2, 1, 't.work', 'k');
		SELECT djactor.send('t.work', 'k', '{"sender": 2, "seq": 1}', deliver_at => clock_timestamp() + '2 s'); SELECT djactor.resume('t.work')});
	my $pid = wait_until('a worker', sub { (worker_pids($node, $database))[0] });
	$node->safe_psql('postgres', $how{$database}[0]);
	$offset = -s $node->logfile;
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	sleep 8; # as long as the first three trials took
	is(log_count($node, qr/FATAL:  (database|cannot connect)/, $offset), 0, "$database: nobody tries to connect");

	# its launcher begins with all databases
	my ($launcher) = process_ids($node, 'djactor launcher');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
	ok(wait_until('a launcher', sub { my ($new) = process_ids($node, 'djactor launcher'); $new && $new != $launcher }), "$database: a new launcher");
	sleep 2;
	is(log_count($node, qr/FATAL:  (database|cannot connect)/, $offset), 0, '... sends nobody there, either');

	$node->safe_psql('postgres', $how{$database}[1]);
	# an UPDATE of the catalog tells nobody
	as_role($node, $database, 'app', q{INSERT INTO sent VALUES (3, 1, 't.work', 'k'); SELECT djactor.send('t.work', 'k', '{"sender": 3, "seq": 1}')}) if $database eq 'broken';
	ok(wait_drained($node, $database, 20), "$database: its mail is handled when it is open again");
	check_ledger($node, $database);
}

# somebody is in a long turn when it is closed: he may go on, but nobody is sent to see to what falls due meanwhile
new_app($node, 'occupied');
as_role($node, 'occupied', 'app', q{SELECT djactor.send('t.work', 'long', '{"sleep": 300}')});
sub long_handler
{
	return wait_until('the handler runs', sub { $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE datname = 'occupied' AND query = 'djactor: t.work' AND state = 'active'}) });
}
my $pid = long_handler();
as_role($node, 'occupied', 'app', q{INSERT INTO sent VALUES (1, 1, 't.work', 'k');
	SELECT djactor.send('t.work', 'k', '{"sender": 1, "seq": 1}', deliver_at => clock_timestamp() + '2 s')});
my $offset = -s $node->logfile;
$node->safe_psql('postgres', 'ALTER DATABASE occupied ALLOW_CONNECTIONS false');
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'occupied' AND pid <> $pid");
sleep 8;
is($node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE datname = 'occupied'}), $pid, 'occupied: who is in there goes on');
# one may have been on his way
cmp_ok(log_count($node, qr/FATAL:  database/, $offset), '<=', 1, '... nobody else tries to get in');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
sleep 2;
cmp_ok(log_count($node, qr/FATAL:  database/, $offset), '<=', 1, '... nor when he has left');
$node->safe_psql('postgres', 'ALTER DATABASE occupied ALLOW_CONNECTIONS true');
ok(long_handler(), '... until it is open again');
ok(wait_until('the other message is handled', sub { $node->safe_psql('occupied', 'SELECT count(*) FROM ledger') }), '... and all is handled');
is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$node->stop;
done_testing();
