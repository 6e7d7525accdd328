# Contract 27: a server is started from a base backup, and a standby of it is made from the same backup.  Promoted, the standby is what
# its primary was: held, or not.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('origin', Init => [ allows_streaming => 1 ], 'djactor.max_workers' => 2);

for my $database (qw(resumed held))
{
	new_app($node, $database);
	$node->safe_psql($database, q{SELECT djactor.pause('t.work'); SELECT post(1, 1, 100, 't.work', 30)});
}
$node->backup('base');
$node->stop;

my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'base');
$copy->start;
ok(wait_until('held', sub { log_count($copy, qr/holds the mail of database/) == 2 }), 'a server started from a backup is held');
as_role($copy, 'resumed', 'app', 'SELECT djactor.resume()');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
my $connstr = $copy->connstr;
$standby->append_conf('postgresql.conf', "primary_conninfo = '$connstr application_name=standby'\n");
$standby->start;
$copy->wait_for_catchup($standby);
$copy->stop;
$standby->promote;
is($standby->safe_psql('resumed', 'SELECT djactor.held()'), 'f', 'its standby, promoted, is not held where the primary was not');
is($standby->safe_psql('held', 'SELECT djactor.held()'), 't', '... and is where it was');
as_role($standby, $_, 'app', q{SELECT djactor.resume('t.work')}) for qw(resumed held);
ok(wait_drained($standby, 'resumed', 10), '... its mail is handled');
is($standby->safe_psql('held', 'SELECT count(*) FROM ledger'), '0', '... or not');
$standby->restart;
is($standby->safe_psql('held', 'SELECT djactor.held()'), 't', 'held after a restart');
is($standby->safe_psql('resumed', 'SELECT djactor.held()'), 'f', '... or not');
as_role($standby, 'held', 'app', 'SELECT djactor.resume()');
ok(wait_drained($standby, 'held'), 'until resume()');
$standby->stop;
done_testing();
