# ClusterTest
#     Private servers that are the nodes of a cluster: each has a database app of role app, with the ledger of
#     DjactorTest, and the others as servers of postgres_fdw.
#
# - new_cluster() makes them; new_citus() makes a cluster of Citus, if has_citus().
# - key_of($node, $number, $what) is a key that lives on the node of that number.
# - check_cluster() is check_ledger() over all of them; check_moved() is so after actors have moved.

package ClusterTest;

use strict;
use warnings FATAL => 'all';

use DjactorTest;
use Exporter 'import';
use Test::More;

our @EXPORT = qw(new_cluster new_citus new_citus_node add_citus_node set_up_citus coordinator has_citus key_of check_cluster check_moved all_handled);

# new_cluster(transport => 'outbox', 'direct' or 'citus', nodes => how many, library => to be preloaded, too, role => who forwards, setting => value, ...):
# running servers, numbered from 1 on, with the type t.work, which post_all() sends to.
sub new_cluster
{
	my (%option) = @_;
	my $transport = delete $option{transport} // 'outbox';
	return new_citus(%option) if $transport eq 'citus';

	my $count = delete $option{nodes} // 2;
	my $library = delete $option{library};
	my $role = delete $option{role} // 'app';
	my @nodes = map {
		new_server("node$_", shared_preload_libraries => 'djactor' . ($library ? ", $library" : ''),
			'djactor.poll_interval' => '1h', %option)
	} 1 .. $count;

	for my $node (@nodes)
	{
		new_app($node, 'app');
		$node->safe_psql('app', 'CREATE EXTENSION djactor_cluster CASCADE');
	}
	join_cluster($transport, $role, @nodes);
	return @nodes;
}

# join_cluster($transport, $role, @nodes): sets them up. The role is made unless it is app, who owns the database.
sub join_cluster
{
	my ($transport, $role, @nodes) = @_;
	my $numbers = join ',', 1 .. @nodes;

	for my $i (1 .. @nodes)
	{
		my $sql = ($role eq 'app' ? '' : "CREATE ROLE $role LOGIN;\n") . "SELECT djactor_cluster.set_up($i, '{$numbers}', '$role');\n";

		for my $j (grep { $_ != $i } 1 .. @nodes)
		{
			my $other = $nodes[ $j - 1 ];

			$sql .= sprintf(q{
				CREATE SERVER node%1$d FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%2$s', port '%3$d', dbname 'app', connect_timeout '5');
				CREATE USER MAPPING FOR app SERVER node%1$d OPTIONS (user 'app', password_required 'false');
				CREATE USER MAPPING IF NOT EXISTS FOR %5$s SERVER node%1$d OPTIONS (user '%5$s', password_required 'false');
				SELECT djactor_cluster.add_node(%1$d, 'node%1$d', '%4$s');
			}, $j, $other->host, $other->port, $transport, $role);
		}
		$nodes[ $i - 1 ]->safe_psql('app', $sql);
	}
	define_post_all($nodes[0]);
}

# define_post_all($node): on all nodes.
sub define_post_all
{
	my ($node) = @_;

	as_role($node, 'app', 'app', q{
		SELECT djactor_cluster.execute($run$
			-- as post() of DjactorTest, to actors of all nodes
			CREATE FUNCTION post_all(sender int, first int, n int, keys int) RETURNS void LANGUAGE sql AS $$
				INSERT INTO sent SELECT $1, s, 't.work', 'k' || s % $4 FROM generate_series($2, $2 + $3 - 1) s;
				INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)
					SELECT 't.work', 'k' || s % $4, jsonb_build_object('sender', $1, 'seq', s)
					FROM generate_series($2, $2 + $3 - 1) s;
			$$;
		$run$)});
}

# has_citus(): is it installed?
sub has_citus
{
	return -f `pg_config --pkglibdir` =~ s/\n//r . '/citus.so';
}

# new_citus(nodes => how many, colocated_with => table, create => SQL that creates it on the coordinator, setting => value, ...): running
# servers, numbered from 1 on; as new_cluster(). Their coordinator has no actors, and is coordinator().
my $coordinator;

sub new_citus
{
	my (%option) = @_;
	my $count = delete $option{nodes} // 2;
	my $create = delete $option{create};
	my $colocated = delete $option{colocated_with};
	my @nodes = map { new_citus_node("citus$_", %option) } 0 .. $count;

	$coordinator = shift @nodes;
	$coordinator->safe_psql('app', sprintf("SELECT citus_set_coordinator_host('%s', %d)", $coordinator->host, $coordinator->port));
	add_citus_node($_) for @nodes;
	as_role($coordinator, 'app', 'app', $create) if $create;
	set_up_citus($colocated);
	define_post_all($nodes[0]);
	return @nodes;
}

sub new_citus_node
{
	my ($name, %option) = @_;
	my $node = new_server($name, shared_preload_libraries => 'citus, djactor', 'djactor.poll_interval' => '1h',
		max_prepared_transactions => 50, wal_level => 'logical', 'citus.recover_2pc_interval' => '1s', %option);

	# where Citus connects to its own server
	$node->append_conf('postgresql.conf', sprintf("citus.local_hostname = '%s'\n", $node->host));
	$node->reload;
	new_app($node, 'app');
	$node->safe_psql('app', 'CREATE EXTENSION citus; CREATE EXTENSION djactor_cluster CASCADE');
	return $node;
}

sub add_citus_node
{
	my ($node) = @_;

	$coordinator->safe_psql('app', sprintf("SELECT citus_add_node('%s', %d)", $node->host, $node->port));
}

sub set_up_citus
{
	my ($colocated) = @_;

	$coordinator->safe_psql('app', sprintf(q{CALL djactor_cluster.set_up_citus('app', %s user_options => '{"password_required": "false"}')},
			$colocated ? "'$colocated'," : ''));
}

sub coordinator
{
	return $coordinator;
}

# key_of($node, $number [, $what]): a key that lives on node number.
sub key_of
{
	my ($node, $number, $what) = @_;

	$what //= 'key';
	return $node->safe_psql('app', qq{
		SELECT '$what' || g FROM generate_series(1, 1000) g WHERE djactor_cluster.node_of_key('$what' || g) = $number LIMIT 1});
}

# all_handled(@nodes): until no message waits on any node, nor to be forwarded.
sub all_handled
{
	my (@nodes) = @_;

	return wait_until('no message waits in the cluster', sub {
		!grep { as_role($_, 'app', 'app', q{
			SELECT count(*) FROM (SELECT FROM djactor.message UNION ALL SELECT FROM djactor_cluster.message) waiting}) ne '0' } @nodes
	});
}

# check_cluster(@nodes): what was sent on all nodes was handled exactly once, where it belongs, and in order.
sub check_cluster
{
	my (@nodes) = @_;

	is($nodes[ $_ - 1 ]->safe_psql('app', 'SELECT count(*) FROM ledger WHERE NOT djactor_cluster.is_here(actor_key)'), 0,
		"node $_ has handled what lives there only") for 1 .. @nodes;
	return check_moved(@nodes);
}

# check_moved(@nodes): likewise, but actors may have moved: their turns are counted over all nodes.
sub check_moved
{
	my (@nodes) = @_;
	my (%sent, %handled, %seqs, %turns, %actor);

	for my $node (@nodes)
	{
		$sent{$_}++ for split /\n/, $node->safe_psql('app', 'SELECT sender, seq, actor_key FROM sent');
		push @{ $turns{ $_->[2] } }, $_ for map { [ split /\|/ ] } split /\n/, $node->safe_psql('app', 'SELECT sender, seq, actor_key, turn FROM ledger');
		$actor{$_}++ for split /\n/, $node->safe_psql('app', q{
			SELECT actor_key, turns, state->>'turn', djactor_cluster.is_here(actor_key) FROM djactor.actor WHERE actor_type = 't.work'});
	}
	for my $key (sort keys %turns)
	{
		my @turns = sort { $a->[3] <=> $b->[3] } @{ $turns{$key} };

		$handled{"$_->[0]|$_->[1]|$key"}++, push @{ $seqs{"$_->[0] $key"} }, $_->[1] for @turns;
		push @{ $turns{wrong} }, $key if grep { $turns[ $_ - 1 ]->[3] != $_ } 1 .. @turns;
	}
	is_deeply([ sort keys %actor ], [ sort map { my $n = @{ $turns{$_} }; "$_|$n|$n|t" } grep { $_ ne 'wrong' } keys %turns ],
		'each actor is on its node, and its state and turns count its messages');
	is_deeply($turns{wrong} // [], [], '... one after the other');
	is_deeply([ sort grep { !$handled{$_} } keys %sent ], [], 'every committed message was handled');
	is_deeply([ sort grep { !$sent{$_} } keys %handled ], [], 'no message was handled that was not committed');
	is_deeply([ sort grep { $handled{$_} > 1 } keys %handled ], [], 'no message was handled twice');
	is_deeply([ grep { my $seqs = $seqs{$_}; grep { $seqs->[ $_ - 1 ] >= $seqs->[$_] } 1 .. $#$seqs } sort keys %seqs ], [],
		'each actor got each sender\'s messages in order');
	return scalar keys %sent;
}

1;
