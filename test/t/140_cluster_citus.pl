# Transport citus: actors on all nodes of a cluster of Citus, each where Citus keeps the rows of its key.
#
# - set_up_citus() does all that each node needs, and can be called again: for a new node, and after an error.
# - Keys live where a distributed table has its rows, so a turn that writes them stays on its node.
# - An ordinary role sends by INSERT. The coordinator, which has no actors, sends, asks and reads, too.
# - What a shard of djactor_cluster.routed_N does not reach is the sender's error, and nobody's fault if a node is down.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use Test::More;

plan skip_all => 'the server has no Citus' unless has_citus();

my ($one, $two) = my @nodes = new_citus(
	colocated_with => 'orders',
	create => q{
		CREATE TABLE orders (customer text NOT NULL, n int NOT NULL, PRIMARY KEY (customer, n));
		SELECT create_distributed_table('orders', 'customer', shard_count => 16);
		CREATE TABLE numbers (n int PRIMARY KEY);
		SELECT create_distributed_table('numbers', 'n');
		CREATE TABLE odd (customer text PRIMARY KEY);
		SELECT create_distributed_table('odd', 'customer', shard_count => 6, colocate_with => 'none');
	});
my $zero = coordinator();

sub fails
{
	my ($node, $sql, $regexp, $name, $role) = @_;

	like(($node->psql('app', $sql, $role ? (extra_params => [ '-U', $role ]) : ()))[2], $regexp, $name);
}

#
# Setting up
#
is(join(' ', map { $_->safe_psql('app', 'SELECT djactor_cluster.this_node()') } $zero, @nodes), '0 1 2', 'the number of a node is that of its group');
is($_->safe_psql('app', q{
	SELECT count(*) FROM generate_series(1, 500) g
		JOIN pg_dist_placement p ON p.shardid = get_shard_id_for_distribution_column('orders', 'k' || g)
	WHERE p.groupid <> djactor_cluster.node_of_key('k' || g)}), 0, 'keys live where their rows are') for $zero, @nodes;
fails($one, q{CALL djactor_cluster.set_up_citus('app')}, qr/not the coordinator of Citus/, 'it is called on the coordinator');
fails($zero, q{SELECT djactor_cluster.citus_slots('numbers')}, qr/public.numbers is not distributed by a column of type text/, 'other types have other hashes');
fails($zero, q{SELECT djactor_cluster.citus_slots('odd')}, qr/the shards of public.odd are no whole slots.*power of two/s, 'shards are whole slots');
fails($zero, q{SELECT djactor_cluster.citus_slots('sent')}, qr/public.sent is not distributed/, '... of a distributed table');
fails($zero, q{CALL djactor_cluster.set_up_citus('app')}, qr/permission denied/, 'a superuser calls it', 'app');
set_up_citus('orders');
is($zero->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.node'), 3, 'once more does no harm');

#
# Turns write what is on their node
#
as_role($zero, 'app', 'app', q{SELECT djactor_cluster.execute($run$
	CREATE FUNCTION "order"(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO orders VALUES ((djactor.self()).actor_key, coalesce((state->>'n')::int, 0) + 1);
		RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
	END $$;
	SELECT djactor.define_actor_type('t.order', 'public.order', max_attempts => 3, breaker_failures => NULL);
$run$)});
as_role($zero, 'app', 'app', q{
	INSERT INTO djactor_cluster.message (actor_type, actor_key) SELECT 't.order', 'k' || g % 40 FROM generate_series(1, 400) g});
ok(all_handled($zero, @nodes), 'the coordinator sends to all nodes');
is(as_role($zero, 'app', 'app', 'SELECT count(*), count(DISTINCT customer), max(n) FROM orders'), '400|40|10', '... whose turns write a distributed table');
is(as_role($zero, 'app', 'app', q{SELECT count(*), count(DISTINCT node), bool_and(node = djactor_cluster.node_of_key(actor_key) AND state->>'n' = '10')
	FROM djactor_cluster.actor WHERE actor_type = 't.order'}), '40|2|t', '... each where its key lives');
is($_->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, '... and nothing is given up') for @nodes;

# an ordinary role, on the coordinator and on a node
$zero->safe_psql('app', 'CREATE ROLE web LOGIN');
as_role($_, 'app', 'app', q{GRANT INSERT (actor_type, actor_key, payload), SELECT (id) ON djactor_cluster.message TO web}) for $zero, $one;
my ($here, $there) = (key_of($zero, 1, 'w'), key_of($zero, 2, 'w'));
like(as_role($_, 'app', 'web', qq{INSERT INTO djactor_cluster.message (actor_type, actor_key) VALUES ('t.order', '$here'), ('t.order', '$there') RETURNING id}),
	qr/^\d+\n\d+$/, 'an ordinary role sends') for $zero, $one;
ok(all_handled($zero, @nodes), '... and it is handled');
is(as_role($zero, 'app', 'app', "SELECT count(*) FROM orders WHERE customer IN ('$here', '$there')"), 4, '... on both nodes');
fails($one, q{INSERT INTO djactor_cluster.routed_2 (actor_type, actor_key, payload) VALUES ('t.order', 'k', '{}')}, qr/permission denied/, '... and by djactor_cluster.message only', 'web');

# who asks on the coordinator waits there
as_role($zero, 'app', 'app', 'CREATE FUNCTION echo(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE sql AS $$ SELECT djactor.result(state, message) $$');
as_role($zero, 'app', 'app', q{SELECT djactor_cluster.define_actor_type('t.echo', 'public.echo')});
my $id = as_role($zero, 'app', 'app', qq{SELECT djactor.send('t.echo', '$there', '{"a": 1}', wants_reply => true)});
is(as_role($zero, 'app', 'app', "SELECT djactor.wait_reply($id, '30 s')"), '{"a": 1}', 'the coordinator asks');

#
# A further node
#
my $three = new_citus_node('citus3');
add_citus_node($three);
set_up_citus('orders');
is($three->safe_psql('app', 'SELECT djactor_cluster.this_node()'), 3, 'a new node of Citus gets its number');
as_role($zero, 'app', 'app', q{SELECT djactor_cluster.define_actor_type('t.echo', 'public.echo')});
$id = as_role($one, 'app', 'app', q{SELECT djactor.send('t.echo', '@3/x', '{"a": 3}', wants_reply => true)});
is(as_role($one, 'app', 'app', "SELECT djactor.wait_reply($id, '30 s')"), '{"a": 3}', '... and the others send to keys that name it');
$id = as_role($three, 'app', 'app', qq{SELECT djactor.send('t.echo', '$here', '{"a": 4}', wants_reply => true)});
is(as_role($three, 'app', 'app', "SELECT djactor.wait_reply($id, '30 s')"), '{"a": 4}', '... and it to theirs');

# ... which gets another address
my $port = PostgreSQL::Test::Cluster::get_free_port();
$three->append_conf('postgresql.conf', "port = $port\n");
$three->stop;
$three->{_port} = $port;
$three->start;
$zero->safe_psql('app', sprintf("SELECT citus_update_node(nodeid, '%s', %d) FROM pg_dist_node WHERE groupid = 3", $three->host, $three->port));
set_up_citus('orders');
ok(wait_until('all nodes know it', sub { !grep { $_->safe_psql('app', 'SELECT nodeport FROM pg_dist_node WHERE groupid = 3') ne $port } $one, $two, $three }), 'a node gets another address');
$id = as_role($one, 'app', 'app', q{SELECT djactor.send('t.echo', '@3/x', '{"a": 6}', wants_reply => true)});
is(as_role($one, 'app', 'app', "SELECT djactor.wait_reply($id, '30 s')"), '{"a": 6}', '... and is sent to');
is(as_role($one, 'app', 'app', q{SELECT count(*) FROM djactor_cluster.actor WHERE actor_key = '@3/x'}), 1, '... and read');

#
# What goes wrong
#
my $moved = q{
	SELECT citus_move_shard_placement(s.shardid, f.nodeid, t.nodeid, 'block_writes')
	FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid) JOIN pg_dist_node f USING (groupid), pg_dist_node t
	WHERE s.logicalrelid = 'djactor_cluster.routed_3'::regclass AND t.groupid = 1};
$zero->safe_psql('app', $moved);
fails($two, q{SELECT djactor.send('t.echo', '@3/x')}, qr/actors with the key "\@3\/x" live on node 3/, 'a shard that was moved by hand does not reach its node', 'app');
set_up_citus('orders');
$id = as_role($two, 'app', 'app', q{SELECT djactor.send('t.echo', '@3/x', '{"a": 5}', wants_reply => true)});
is(as_role($two, 'app', 'app', "SELECT djactor.wait_reply($id, '30 s')"), '{"a": 5}', '... until all is set up again');

as_role($one, 'app', 'app', q{
	SET citus.enable_ddl_propagation = off;
	CREATE FUNCTION tells(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM djactor.send('t.echo', message->>'to');
		RETURN '{"told": true}';
	END $$;
	SELECT djactor.define_actor_type('t.tells', 'public.tells', max_attempts => 1, backoff => '10 ms', backoff_max => '100 ms');
});
$two->stop('immediate');
fails($one, qq{SELECT djactor.send('t.echo', '$there')}, qr/connection to the remote node/, 'a node that is down refuses', 'app');
as_role($one, 'app', 'app', qq{SELECT djactor.send('t.tells', '$here', '{"to": "$there"}')});
ok(wait_until('it has failed', sub { $one->safe_psql('app', q{SELECT count(*) FROM djactor.mailbox WHERE actor_type = 't.tells' AND last_error IS NOT NULL}) eq '1' }), 'a turn that sends there fails');
is($one->safe_psql('app', q{SELECT count(*) FROM djactor.dead_letter}), 0, '... and uses up no attempt');
$two->start;
ok(wait_until('it is told', sub { $one->safe_psql('app', q{SELECT state->>'told' FROM djactor.actor WHERE actor_type = 't.tells'}) eq 'true' }), '... and is done when the node is back');
ok(all_handled($zero, @nodes, $three), 'nothing is left');
$_->stop for $zero, @nodes, $three;
done_testing();
