# Two-phase commit over the shards, by hand: what Citus would do, which commits a transaction that has written on two nodes by
# PREPARE TRANSACTION on both and then COMMIT PREPARED on both. Here the test is the coordinator. Either node crashes between any two
# of these steps, with the decision to commit made or not: then what was committed is handled once and in order on both nodes,
# and nothing else is. A message in doubt holds up nobody: others to the same actor are handled before it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use Test::More;

my ($one, $two) = my @nodes = new_cluster(transport => 'direct', max_prepared_transactions => 4);
my $seq = 0;
my @keys = (key_of($one, 1), key_of($one, 2));

# parts(): the SQL of one transaction on node 1, and on node 2. Node 1 says what was sent.
sub parts
{
	my ($from, $to) = ($seq + 1, $seq + 10);

	$seq = $to;
	return (
		qq{
			INSERT INTO sent SELECT sender, s, 't.work', key FROM generate_series($from, $to) s, (VALUES (1, '$keys[0]'), (3, '$keys[1]')) actor (sender, key);
			INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)
				SELECT 't.work', '$keys[0]', jsonb_build_object('sender', 1, 'seq', s) FROM generate_series($from, $to) s},
		# as Citus writes into a shard
		qq{
			INSERT INTO djactor_cluster.message_here (actor_type, actor_key, payload)
				SELECT 't.work', '$keys[1]', jsonb_build_object('sender', 3, 'seq', s) FROM generate_series($from, $to) s});
}

sub prepare
{
	my ($node, $sql) = @_;

	as_role($node, 'app', 'app', "BEGIN; $sql; PREPARE TRANSACTION 'both'");
}

sub finish
{
	my ($how) = @_;

	for my $node (@nodes)
	{
		my $there = $node->safe_psql('app', 'SELECT count(*) FROM pg_prepared_xacts');

		as_role($node, 'app', 'app', "$how PREPARED 'both'") if $there;
	}
}

sub crash
{
	my ($node) = @_;

	$node->stop('immediate');
	$node->start;
}

#
# A message in doubt
#
my ($first, $second) = parts();
prepare($one, $first);
prepare($two, $second);
my $later = as_role($two, 'app', 'app', qq{
	INSERT INTO sent VALUES (2, 1, 't.work', '$keys[1]');
	INSERT INTO djactor_cluster.message (actor_type, actor_key, payload) VALUES ('t.work', '$keys[1]', '{"sender": 2, "seq": 1}') RETURNING id});
ok(wait_until('it is handled', sub { $two->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender = 2') eq '1' }), 'a message that comes later is not held up by one in doubt');
is($two->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender = 3'), 0, '... which is not handled');
finish('COMMIT');
ok(all_handled(@nodes), '... until it is committed');
is($_->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender IN (1, 3)'), 10, '... on both nodes') for @nodes;
is($_->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.message_here'), 0, '... and the shards are empty') for @nodes;

#
# A crash between any two steps, of either node
#
for my $victim (@nodes)
{
	# before the second node has prepared: nothing was decided, so all is rolled back
	($first, $second) = parts();
	prepare($one, $first);
	crash($victim);
	finish('ROLLBACK');

	# both have prepared, and the decision is to roll back
	($first, $second) = parts();
	prepare($one, $first);
	prepare($two, $second);
	crash($victim);
	finish('ROLLBACK');

	# both have prepared, and the decision is to commit
	($first, $second) = parts();
	prepare($one, $first);
	prepare($two, $second);
	crash($victim);
	finish('COMMIT');

	# one has committed
	for my $node (@nodes)
	{
		($first, $second) = parts();
		prepare($one, $first);
		prepare($two, $second);
		as_role($node, 'app', 'app', "COMMIT PREPARED 'both'");
		crash($victim);
		finish('COMMIT');
	}

	# both have
	($first, $second) = parts();
	prepare($one, $first);
	prepare($two, $second);
	finish('COMMIT');
	crash($victim);
}
ok(all_handled(@nodes), 'what is committed is handled, whoever crashed in between');
is($_->safe_psql('app', 'SELECT count(*) FROM ledger WHERE sender IN (1, 3)'), 90, '... on both nodes, and nothing that was rolled back') for @nodes;
is(check_cluster(@nodes), 181, 'ledger');
$_->stop for @nodes;
done_testing();
