# Citus commits what is sent to another node in two phases, so that a server which ends at any moment neither loses a message nor
# doubles one, whether a client has sent it or a turn. The same holds for a row of the other node that a turn writes, or whoever sends
# a message to an actor here. Each phase is held for as long as the test wants, by a standby that does not come: whoever has written a
# record of the phase waits for it. Then the server that sends ends, or the one that receives. At last the servers end under load,
# the coordinator of Citus included.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use Test::More;

plan skip_all => 'the server has no Citus' unless has_citus();

my ($one, $two) = my @nodes = new_citus(
	max_wal_senders => 2,
	create => q{CREATE TABLE orders (customer text PRIMARY KEY); SELECT create_distributed_table('orders', 'customer', shard_count => 16)},
	colocated_with => 'orders');
my $seq = 0;
my $here = key_of($one, 1);
my $there = key_of($one, 2);
my $waits = q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type <> 'Citus Maintenance Daemon'};
my $prepared = 'SELECT count(*) FROM pg_prepared_xacts';

# a turn that sends what it is told to
as_role($one, 'app', 'app', q{SELECT djactor_cluster.execute($run$
	CREATE FUNCTION relay(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(1);
		PERFORM djactor.send('t.work', message->>'to', message);
		RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
	END $$;
	SELECT djactor.define_actor_type('t.relay', 'public.relay', max_attempts => 1000, breaker_failures => NULL, backoff => '10 ms', backoff_max => '100 ms')
$run$)});

# stall($node, $on): whether what is written there waits.
sub stall
{
	my ($node, $on) = @_;

	$node->safe_psql('postgres', $on ? q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'} : 'ALTER SYSTEM RESET synchronous_standby_names');
	$node->reload;
	wait_until('the setting', sub { $node->safe_psql('postgres', 'SHOW synchronous_standby_names') eq ($on ? 'nobody' : '') });
}

sub crash
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
	$node->stop('immediate');
	$node->start;
}

# sends($who, $from, $n): SQL that has a client of node 1, or an actor of it, send messages to node 2.
sub sends
{
	my ($who, $from, $n) = @_;
	my $to = $from + $n - 1;
	# a turn that is tried again comes after others, so they are in no order
	my $sender = $who eq 'client' ? 1 : 's';

	return qq{
		INSERT INTO sent SELECT $sender, s, 't.work', '$there' FROM generate_series($from, $to) s;
		INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)
			SELECT } . ($who eq 'client' ? qq{'t.work', '$there'} : qq{'t.relay', '$here'}) . qq{, jsonb_build_object('sender', $sender, 'seq', s, 'to', '$there') FROM generate_series($from, $to) s;};
}

# What is to stall, and how a transaction shows that it has got there.
my %phase = (
	'prepared on the other node and not decided' => [ $two, sub { $two->safe_psql('app', $waits) > 0 && $two->safe_psql('app', $prepared) eq '1' } ],
	'decided and not committed on the other node' => [ $one, sub { $one->safe_psql('app', $waits) > 0 && $two->safe_psql('app', $prepared) eq '1' } ]);

for my $who ('client', 'turn')
{
	for my $victim ($one, $two)
	{
		for my $phase (sort keys %phase)
		{
			for my $further ($phase =~ /^decided/ ? (0, 1) : 0)
			{
				my $name = sprintf '%s, %s, node %d ends', $who, $further ? 'committed on the other node, which does not say so' : $phase, $victim == $one ? 1 : 2;
				my $session = session($one, 'app', 'app');
				my ($stalls, $reached) = @{ $phase{$phase} };

				# the turn waits for the lock
				$session->query('SELECT pg_advisory_lock(1)');
				$session->query('BEGIN; ' . sends($who, $seq + 1, 5) . ($who eq 'turn' ? 'COMMIT' : ''));
				$seq += 5;
				stall($stalls, 1);
				$session->start($who eq 'turn' ? 'SELECT pg_advisory_unlock(1)' : 'COMMIT');
				ok(wait_until('the phase', $reached), $name);
				if ($further)
				{
					stall($two, 1);
					stall($one, 0);
					ok(wait_until('the phase', sub { $two->safe_psql('app', "$waits AND query LIKE 'COMMIT PREPARED%'") > 0 }), '... is reached');
				}
				crash($victim);
				stall($_, 0) for @nodes;
				$session->quit;
				ok(wait_until('Citus has recovered', sub { !grep { $_->safe_psql('app', $prepared) ne '0' } @nodes }), '... nothing stays in doubt');
				ok(all_handled(@nodes), '... and all is handled');
			}
		}
	}
}
check_cluster(@nodes);
is($one->safe_psql('app', "SELECT count(*) < $seq FROM sent"), 't', 'what was not decided was rolled back');

#
# A single row of the other node, and no message to it
#
as_role($one, 'app', 'app', q{SELECT djactor_cluster.execute($run$
	CREATE FUNCTION write(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO orders VALUES (message->>'row');
		RETURN '{"written": true}';
	END $$;
	SELECT djactor.define_actor_type('t.write', 'public.write', max_attempts => 3, breaker_failures => NULL, backoff => '10 ms', backoff_max => '100 ms')
$run$)});
for my $victim ($one, $two)
{
	for my $who ('client', 'turn')
	{
		my $session = session($one, 'app', 'app');

		stall($two, 1);
		$session->start($who eq 'turn' ? qq{SELECT djactor.send('t.write', '$here', '{"row": "$there"}')} : qq{
			BEGIN; INSERT INTO sent VALUES (900, $seq, 't.work', '$here'); INSERT INTO orders VALUES ('$there');
			SELECT djactor.send('t.work', '$here', '{"sender": 900, "seq": $seq}'); COMMIT});
		ok(wait_until('the phase', $phase{'prepared on the other node and not decided'}[1]), "a $who writes a row of the other node");
		crash($victim);
		stall($_, 0) for @nodes;
		$session->quit;
		ok(wait_until('Citus has recovered', sub { $two->safe_psql('app', $prepared) eq '0' }), '... and a server ends');
		ok(all_handled(@nodes), '... and all is handled');
		is(as_role($one, 'app', 'app', 'SELECT count(*) FROM orders'), $one->safe_psql('app', $who eq 'turn' ?
				q{SELECT count(*) FROM djactor.actor WHERE actor_type = 't.write' AND state->>'written' = 'true'} :
				"SELECT count(*) FROM sent WHERE sender = 900 AND seq = $seq"), '... and the row is there if and only if its transaction has committed');
		is($one->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, '... and no turn has found that it had been there');
		as_role($one, 'app', 'app', q{DELETE FROM orders; SELECT djactor.erase('t.write', '} . $here . q{')});
		$seq++;
	}
}
check_cluster(@nodes);

#
# A message by itself is committed by the other node alone, and who has sent it does not know whether it was
#
for my $try (1, 2)
{
	my $session = session($one, 'app', 'app');

	stall($two, 1) if $try == 1;
	$session->start(qq{INSERT INTO djactor_cluster.message (actor_type, actor_key, payload, idempotency_key) VALUES ('t.work', '$there', '{"sender": 901, "seq": 1}', 'once')});
	if ($try == 1)
	{
		ok(wait_until('its commit', sub { $two->safe_psql('app', $waits) > 0 }), 'the other node has committed, and does not say so');
		crash($two);
	}
	$session->finish;
	is($session->{err} =~ /ERROR/, $try == 1, $try == 1 ? '... its sender gets an error' : '... and sends once more');
	$session->quit;
}
as_role($one, 'app', 'app', "INSERT INTO sent VALUES (901, 1, 't.work', '$there')");
ok(all_handled(@nodes), '... and all is handled');
check_cluster(@nodes);

#
# Under load
#
my @senders = ([ $one, 1001, 0 ], [ $two, 1002, 0 ]);

for my $victim (coordinator(), $one, $two, $two, coordinator(), $one)
{
	my @sessions = map { session($_->[0], 'app', 'app') } @senders;

	for my $i (0, 1)
	{
		my ($node, $id, $from) = @{ $senders[$i] };

		$sessions[$i]->start(join ";\n", map { sprintf 'SELECT post_all(%d, %d, 20, 20)', $id, $from + 20 * $_ } 0 .. 19);
		$senders[$i][2] += 400;
	}
	# while they send
	wait_until('some are sent', sub { $one->safe_psql('app', "SELECT count(*) FROM sent WHERE sender > 1000 AND seq >= $senders[0][2] - 380") > 0 });
	crash($victim);
	for (@sessions)
	{
		eval { $_->finish };
		$_->quit;
	}
}
ok(wait_until('Citus has recovered', sub { !grep { $_->safe_psql('app', $prepared) ne '0' } @nodes, coordinator() }), 'servers end under load, and nothing stays in doubt');
ok(all_handled(@nodes), '... and all is handled');
check_cluster(@nodes);
$_->stop for @nodes, coordinator();
done_testing();
