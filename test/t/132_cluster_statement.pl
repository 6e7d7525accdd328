# Transports direct and citus: a sender's statement puts the message into the other node's mailbox. Two servers; with direct the
# shards of the other one are foreign tables of postgres_fdw.
#
# - INSERT, many VALUES, INSERT ... SELECT, COPY and RETURNING send to both nodes; the id names an answer.
# - Nothing is left in the shards, and their triggers fire whichever way a row comes.
# - A rollback, or one to a savepoint, unsends on both nodes; what is wrong is the sender's error.
# - What a turn sends goes to the other node with its commit. Kills lose nothing. With direct, what was in doubt may come twice, and only that.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use Test::More;

my ($one, $two, @nodes);

sub fails
{
	my ($sql, $regexp, $name) = @_;

	like(($one->psql('app', $sql, extra_params => [ '-U', 'app' ]))[2], $regexp, $name);
}

sub relay
{
	my ($node, $sender, $from, $n) = @_;

	return wait_until('a sender', sub { as_role($node, 'app', 'app', qq{
		BEGIN;
		INSERT INTO sent SELECT $sender, s, 't.work', 'k' || s % 10 FROM generate_series($from, $from + $n - 1) s;
		INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)
			SELECT 't.relay', '\@' || djactor_cluster.this_node(), jsonb_build_object('sender', $sender, 'seq', s, 'to', 'k' || s % 10) FROM generate_series($from, $from + $n - 1) s;
		COMMIT; SELECT 1}) });
}

for my $transport ('direct', has_citus() ? 'citus' : ())
{
	($one, $two) = @nodes = new_cluster(transport => $transport);
	my $here = key_of($one, 1);
	my $there = key_of($one, 2);
	my $giver = $transport eq 'direct' ? 2 : 1;
	my $count = 'SELECT count(*) FROM djactor.message';

	as_role($one, 'app', 'app', q{SELECT djactor_cluster.execute('SELECT djactor.pause(''t.work'')')});
	is(as_role($one, 'app', 'app', qq{
		INSERT INTO djactor_cluster.message (actor_type, actor_key, payload, priority, idempotency_key) VALUES
			('t.work', '$here', '{"n": 1}', 1, 'a'), ('t.work', '$there', '{"n": 2}', 2, 'b'), ('t.work', '$there', '{"n": 3}', 3, NULL)
		RETURNING actor_key, payload->>'n', djactor_cluster.node_of(id)}), "$here|1|1\n$there|2|$giver\n$there|3|$giver", "$transport: RETURNING has ids");
	is(as_role($two, 'app', 'app', q{SELECT actor_key, payload->>'n', priority, idempotency_key, kind, sent_at IS NOT NULL, trace_id IS NOT NULL, attempts, released FROM djactor.message ORDER BY id}),
		"$there|2|2|b|user|t|t|0|f\n$there|3|3||user|t|t|0|f", '... as they were sent');
	my $id = as_role($one, 'app', 'app', qq{SELECT djactor.send('t.work', '$there', '{"n": 4}')});
	is($two->safe_psql('app', q{SELECT id FROM djactor.message WHERE payload->>'n' = '4'}) eq $id, $transport eq 'direct', 'send() returns one, too');
	as_role($one, 'app', 'app', "COPY djactor_cluster.message (actor_type, actor_key, payload) FROM stdin;\nt.work\t$here\t{\"n\": 5}\nt.work\t$there\t{\"n\": 6}\n\\.\n");
	as_role($one, 'app', 'app', qq{
		PREPARE many(int) AS INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)
			SELECT 't.work', CASE WHEN g % 2 = 0 THEN '$here' ELSE '$there' END, jsonb_build_object('n', g) FROM generate_series(7, \$1) g;
		EXECUTE many(2006)});
	is($one->safe_psql('app', $count) . ' ' . $two->safe_psql('app', $count), '1002 1004', 'COPY and INSERT ... SELECT send to both');
	is($_->safe_psql('app', q{SELECT count(*) FROM (SELECT id, lag((payload->>'n')::int) OVER (ORDER BY id) >= (payload->>'n')::int AS bad FROM djactor.message) x WHERE bad}),
		0, '... in order') for @nodes;
	is($_->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.message_here'), 0, '... and leave nothing in the shards') for @nodes;
	as_role($two, 'app', 'app', qq{INSERT INTO djactor_cluster.message_here (actor_type, actor_key, payload) VALUES ('t.work', '$there', '{"n": 2007}')});
	is($two->safe_psql('app', $count), 1005, 'a row that is inserted into a shard is sent');

	#
	# Errors and rollbacks
	#
	fails(qq{INSERT INTO djactor_cluster.message (actor_type, actor_key) VALUES ('t.nowhere', '$there')}, qr/actor type "t.nowhere" does not exist/, 'an unknown type');
	fails(qq{INSERT INTO djactor_cluster.message (actor_type, actor_key) VALUES ('t.nowhere', '$here')}, qr/actor type "t.nowhere" does not exist/, '... here, too');
	fails(qq{INSERT INTO djactor_cluster.message (actor_type, actor_key, coalesce_mode) VALUES ('t.work', '$there', 'keep')}, qr/coalesce_mode needs a coalesce key/, 'options that do not fit');
	fails(qq{INSERT INTO djactor_cluster.message (actor_type, actor_key) VALUES ('t.work', NULL)},
		$transport eq 'direct' ? qr/no partition of relation "message" found for row/ : qr/column "actor_key" .* must not be null/, 'no key');
	like(($two->psql('app', qq{INSERT INTO djactor_cluster.message_here (actor_type, actor_key) VALUES ('t.work', '$here')}))[2], qr/live on node 1/, 'a key in a wrong shard');
	as_role($two, 'app', 'app', q{SELECT djactor.alter_actor_type('t.work', mailbox_limit => 1010)});
	fails(qq{INSERT INTO djactor_cluster.message (actor_type, actor_key) SELECT 't.work', '$there' FROM generate_series(1, 20)}, qr/mailbox of actor t.work .* is full/, 'a full mailbox');
	as_role($one, 'app', 'app', qq{INSERT INTO djactor_cluster.message (actor_type, actor_key) SELECT 't.work', '$there' FROM generate_series(1, 5)});
	is($two->safe_psql('app', $count), 1010, '... while there is room for what fits');
	as_role($two, 'app', 'app', q{SELECT djactor.alter_actor_type('t.work', mailbox_limit => NULL)});
	as_role($one, 'app', 'app', 'BEGIN; SELECT post_all(1, 1, 100, 10); ROLLBACK');
	as_role($one, 'app', 'app', 'BEGIN; SELECT post_all(1, 1, 20, 10); SAVEPOINT s; SELECT post_all(1, 21, 100, 10); ROLLBACK TO s; COMMIT');
	is($one->safe_psql('app', $count) + $two->safe_psql('app', $count), 1002 + 1010 + 20, 'what is rolled back is unsent on both');
	my $before = $two->safe_psql('app', $count);
	as_role($two, 'app', 'app', qq{
		DO \$\$
		BEGIN
			FOR i IN 1 .. 50 LOOP
				BEGIN
					INSERT INTO djactor_cluster.message (actor_type, actor_key, payload)
						SELECT 't.work', '$there', jsonb_build_object('sender', i, 'seq', 1 / (g + i % 5 - 7)) FROM generate_series(1, 5) g;
				EXCEPTION WHEN division_by_zero THEN
					INSERT INTO djactor_cluster.message (actor_type, actor_key) VALUES ('t.work', '$there');
				END;
			END LOOP;
		END \$\$});
	is($two->safe_psql('app', $count) - $before, 20 * 5 + 30, '... also when statements fail under savepoints, one after the other');
	$_->safe_psql('app', q{DELETE FROM sent; SELECT djactor.drop_actor_type('t.work', discard => true)}) for @nodes;

	#
	# Turns send to turns of the other node, under kills
	#
	as_role($one, 'app', 'app', q{SELECT djactor_cluster.execute($run$
		SELECT djactor.define_actor_type('t.work', 'public.work', max_attempts => 100, breaker_failures => NULL, backoff => '10 ms', backoff_max => '100 ms');
		CREATE FUNCTION relay(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM djactor.send('t.work', message->>'to', message);
			RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1);
		END $$;
		SELECT djactor.define_actor_type('t.relay', 'public.relay', max_attempts => 1000, breaker_failures => NULL, backoff => '10 ms', backoff_max => '100 ms')
	$run$)});
	relay($nodes[$_], 10 + $_, 1, 300) for 0, 1;
	ok(all_handled(@nodes), 'what turns send to the other node is handled');
	check_cluster(@nodes);
	is($one->safe_psql('app', qq{SELECT count(*) FROM djactor.message}), 0, 'nothing is left');

	for my $round (1 .. 4)
	{
		relay($nodes[$_], 20 + $_, 1000 * $round, 50) for 0, 1;
		my $victim = $nodes[ $round % 2 ];

		$victim->stop('immediate');
		$victim->start;
	}
	ok(all_handled(@nodes), 'after kills of both nodes all is handled');
	# a turn that is tried again comes after others
	my $distinct = $transport eq 'direct' ? 'DISTINCT' : '';
	my (@sent, @handled);

	for my $node (@nodes)
	{
		push @sent, split /\n/, $node->safe_psql('app', 'SELECT sender, seq FROM sent');
		push @handled, split /\n/, $node->safe_psql('app', "SELECT $distinct sender, seq FROM ledger");
	}
	is_deeply([ sort @handled ], [ sort @sent ], '... and nothing is lost, nor handled that was not sent');
	is($_->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, '... and nothing given up') for @nodes;
	$_->stop, $_->clean_node for @nodes;
}
done_testing();
