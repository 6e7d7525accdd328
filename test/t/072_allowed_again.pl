# A database that was closed to connections, or a template, when the server started: as soon as it is neither, its mail is handled, though
# nobody sends there.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('allowed', 'djactor.max_workers' => 2);
my %how = (closed => [ 'ALLOW_CONNECTIONS false', 'ALLOW_CONNECTIONS true' ], template => [ 'IS_TEMPLATE true', 'IS_TEMPLATE false' ]);

for my $database (sort keys %how)
{
	new_app($node, $database);
	# due when nobody is there yet
	as_role($node, $database, 'app', q{INSERT INTO sent VALUES (1, 1, 't.work', 'k');
		SELECT djactor.send('t.work', 'k', '{"sender": 1, "seq": 1}', deliver_at => clock_timestamp() + '3 s')});
	$node->safe_psql('postgres', "ALTER DATABASE $database $how{$database}[0]");
}
$node->restart;
ok(wait_until('3 s', sub { $node->safe_psql('postgres', q{SELECT clock_timestamp() > pg_postmaster_start_time() + '4 s'}) eq 't' }), 'time passes');
for my $database (sort keys %how)
{
	my $offset = -s $node->logfile;

	$node->safe_psql('postgres', "ALTER DATABASE $database $how{$database}[1]");
	ok(wait_drained($node, $database, 20), "$database: its mail is handled when it is that no more");
	check_ledger($node, $database);
	is(log_count($node, qr/FATAL/, $offset), 0, "$database: nothing failed");
}
$node->stop;
done_testing();
