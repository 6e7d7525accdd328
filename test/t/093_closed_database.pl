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
is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$node->stop;
done_testing();
