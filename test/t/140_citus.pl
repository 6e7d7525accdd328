# Transport citus, on a coordinator and two other nodes of Citus.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use Test::More;

plan skip_all => 'the server has no Citus' unless has_citus();

my @nodes = new_citus(3);
my ($zero, $one, $two) = @nodes;
note $_->safe_psql('app', 'SELECT djactor_cluster.this_node()') for @nodes;
note $zero->safe_psql('app', 'SELECT n, count(*) FROM generate_series(1,1000) g, djactor_cluster.node_of_key($$k$$||g) n group by 1 order by 1');
my $there = key_of($zero, 1);
note as_role($zero, 'app', 'app', qq{
	INSERT INTO djactor_cluster.message (actor_type, actor_key, payload) VALUES ('t.work', '$there', '{"sender": 1, "seq": 1}') RETURNING id});
sleep 3;
note $one->safe_psql('app', 'SELECT * FROM ledger');
for my $i (0..2) { as_role($nodes[$i], 'app', 'app', "SELECT post_all($i + 10, 1, 300, 30)"); }
ok(all_handled(@nodes), 'all handled');
$zero->safe_psql('app', "INSERT INTO sent VALUES (1,1,'t.work','$there')");
check_cluster(@nodes);
done_testing();
