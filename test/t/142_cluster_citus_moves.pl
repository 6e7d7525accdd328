# Actors follow the rows of their keys: Citus moves shards, and follow_citus() moves the actors after them, while all nodes send.
# What was sent is handled once and in order, before, between and after.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use Test::More;

plan skip_all => 'the server has no Citus' unless has_citus();

my @nodes = new_citus(
	max_wal_senders => 10,
	colocated_with => 'orders',
	create => q{
		CREATE TABLE orders (customer text PRIMARY KEY);
		SELECT create_distributed_table('orders', 'customer', shard_count => 16)});
my $zero = coordinator();
my $strays = q{
	SELECT count(*) FROM generate_series(0, 39) g
		JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('orders', 'k' || g)
	WHERE p.groupid <> djactor_cluster.node_of_key('k' || g)};

sub move_shards
{
	my ($from, $to, $n) = @_;

	$zero->safe_psql('app', qq{
		SELECT citus_move_shard_placement(shardid, f.nodeid, t.nodeid, 'block_writes')
		FROM (SELECT shardid FROM pg_dist_shard JOIN pg_dist_placement USING (shardid)
				WHERE logicalrelid = 'orders'::regclass AND groupid = $from ORDER BY 1 LIMIT $n) s,
			pg_dist_node f, pg_dist_node t
		WHERE f.groupid = $from AND t.groupid = $to});
}

as_role($zero, 'app', 'app', q{SELECT djactor_cluster.execute($run$
	CREATE TABLE stop (now boolean);
	CREATE PROCEDURE post_on(sender int) LANGUAGE plpgsql AS $$
	DECLARE
		seq int := 1;
	BEGIN
		WHILE NOT EXISTS (SELECT FROM stop) LOOP
			PERFORM post_all(sender, seq, 7, 40);
			COMMIT;
			seq := seq + 7;
			PERFORM pg_sleep(0.01);
		END LOOP;
	END $$ $run$)});
my @posting = map { session($_, 'app', 'app') } $zero, @nodes;
$posting[$_]->start('CALL post_on(' . (101 + $_) . ')') for 0 .. $#posting;
ok(wait_until('mail', sub { !grep { $_->safe_psql('app', 'SELECT count(DISTINCT actor_key) FROM ledger') < 15 } @nodes }), 'all nodes send');

for my $move ([ 1, 2, 8 ], [ 2, 1, 12 ], [ 1, 2, 3 ])
{
	my $turns = $nodes[0]->safe_psql('app', 'SELECT count(*) FROM ledger') + $nodes[1]->safe_psql('app', 'SELECT count(*) FROM ledger');

	move_shards(@$move);
	cmp_ok($zero->safe_psql('app', $strays), '>', 0, "$move->[2] shards move from node $move->[0] to node $move->[1]");
	$zero->safe_psql('app', q{CALL djactor_cluster.follow_citus('orders')});
	is(join(' ', map { $_->safe_psql('app', $strays) } $zero, @nodes), '0 0 0', '... and their actors after them');
	ok(wait_until('turns', sub { $nodes[0]->safe_psql('app', 'SELECT count(*) FROM ledger') + $nodes[1]->safe_psql('app', 'SELECT count(*) FROM ledger') > $turns + 100 }),
		'... which go on');
}

# the shard and its actors by one call
my ($shard, $source) = split /\|/, $zero->safe_psql('app', q{
	SELECT shardid, groupid FROM pg_dist_placement WHERE shardid = get_shard_id_for_distribution_column('orders', 'k1')});
my $target = 3 - $source;
$zero->safe_psql('app', "CALL djactor_cluster.move_shard($shard, $target)") for 1, 2;
is($_->safe_psql('app', q{SELECT djactor_cluster.node_of_key('k1')}), $target, 'move_shard() moves both, and again does nothing') for $zero, @nodes;
is($zero->safe_psql('app', $strays), 0, '... to the same node');
for my $call (
	[ 'CALL djactor_cluster.move_shard(1, 1)', qr/there is no shard 1, or no node 1/ ],
	[ "CALL djactor_cluster.move_shard($shard, 9)", qr/there is no shard $shard, or no node 9/ ],
	[ "BEGIN; CALL djactor_cluster.move_shard($shard, 1)", qr/cannot be moved in a transaction block/ ])
{
	like(($zero->psql('app', $call->[0]))[2], $call->[1], $call->[0]);
}
$_->safe_psql('app', 'INSERT INTO stop VALUES (true)') for $zero, @nodes;
for (@posting)
{
	eval { $_->finish };
	is($_->{err} . $@, '', 'no sender got an error');
	$_->quit;
}
ok(all_handled($zero, @nodes), 'all is handled');
check_moved($zero, @nodes);
like(($zero->psql('app', q{CALL djactor_cluster.follow_citus('orders')}, extra_params => [ '-U', 'app' ]))[2], qr/permission denied/, 'a superuser calls it');
$_->stop for $zero, @nodes;
done_testing();
