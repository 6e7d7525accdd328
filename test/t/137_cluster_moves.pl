# Actors move to other nodes, by both transports: under load from all nodes, with all that they have, and over kills of the process that moves
# them and of both servers between any two steps. Then what was sent is handled once and in order, and to call again finishes what was
# begun. Who waits for what: a turn and an open transaction hold up the move of their own actors, and nobody else for longer than the patience.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/late_failure.so';
chomp(my $headers = `pg_config --includedir-server`);
system('cc', '-shared', '-fPIC', '-isystem', $headers, '-o', $library, "$FindBin::RealBin/late_failure.c") == 0
  or die 'late_failure.c does not compile';

my (@nodes, $super);

# mapped(): the superuser of each node is one on the others.
sub mapped
{
	for my $i (1 .. @nodes)
	{
		$nodes[ $i - 1 ]->safe_psql('app', join '', map {
			"CREATE USER MAPPING FOR CURRENT_USER SERVER node$_ OPTIONS (user '$super', password_required 'false');\n"
		} grep { $_ != $i } 1 .. @nodes);
	}
}

# slots_of($node, $where): slots of keys, as an array
sub slots_of
{
	my ($node, @keys) = @_;

	return $node->safe_psql('app', sprintf q{SELECT array_agg(DISTINCT djactor_cluster.slot_of_key(key)) FROM unnest('{%s}'::text[]) key}, join ',', @keys);
}

# move($from, $slots, $to): by numbers of nodes; dies of an error
sub move
{
	my ($from, $slots, $to) = @_;

	return $nodes[ $from - 1 ]->safe_psql('app', "CALL djactor_cluster.move_slots('$slots', $to)");
}

# fails($sql, $regexp, $name, $role): on node 1
sub fails
{
	my ($sql, $regexp, $name, $role) = @_;

	like(($nodes[0]->psql('app', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $role // $super ]))[2], $regexp, $name);
}

# Senders on all nodes, which go on until stop_posting(). Each returns what psql has said.
my ($sender, @posting) = (1000);

sub start_posting
{
	my ($keys) = @_;

	for my $node (@nodes)
	{
		my $session = session($node, 'app', 'app');

		$session->start(sprintf 'CALL post_on(%d, %d)', $sender++, $keys);
		push @posting, $session;
	}
}

sub stop_posting
{
	my $errors = '';

	$_->safe_psql('app', 'INSERT INTO stop VALUES (true)') for @nodes;
	for my $session (@posting)
	{
		eval { $session->finish };
		$errors .= $session->{err} . $@;
		$session->quit;
	}
	@posting = ();
	$_->safe_psql('app', 'DELETE FROM stop') for @nodes;
	return $errors;
}

#
# All that actors have
#

# What a kit does with its messages is in its state: their names in order, with the answer that they are.
my $kit = q{
	CREATE FUNCTION kit(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
	DECLARE
		m djactor.message := djactor.message();
		what text := coalesce(message->>'what', m.kind);
		id bigint;
	BEGIN
		IF what = 'stash' AND NOT state ? 'open' THEN
			PERFORM djactor.stash();
			RETURN djactor.result(state, NULL);
		END IF;
		state := jsonb_set(state, '{got}', coalesce(state->'got', '[]') || to_jsonb(what));
		IF what = 'fail' THEN
			RAISE EXCEPTION 'told to fail';
		ELSIF what = 'reject' AND m.redrives = 0 THEN
			PERFORM djactor.reject('told to');
		ELSIF what = 'open' THEN
			state := state || '{"open": true}';
			PERFORM djactor.unstash_all();
		ELSIF what = 'later' THEN
			state := jsonb_set(state, '{later}', coalesce(state->'later', '[]') || to_jsonb(djactor.defer_reply()));
		ELSIF what = 'now' THEN
			FOR id IN SELECT jsonb_array_elements_text(state->'later')::bigint LOOP
				PERFORM djactor.reply('"late"', id);
			END LOOP;
		ELSIF what = 'watch' THEN
			PERFORM djactor.watch('t.kit', message->>'key');
		ELSIF what = 'ask' THEN
			state := state || jsonb_build_object('asked', djactor.send('t.kit', message->>'key', message->'say', wants_reply => true));
		ELSIF m.in_reply_to IS NOT NULL THEN
			state := state || jsonb_build_object('answer', message, 'answered', m.in_reply_to);
		END IF;
		RETURN djactor.result(state, jsonb_build_object('what', what));
	END $$;
	SELECT djactor.define_actor_type('t.kit', 'kit', journal => '1 day', backoff => '1 hour', breaker_failures => NULL);
	SELECT djactor.define_actor_type('t.asks', 'kit')};

# carried($transport, $from, $to): from that node to that one, and the third one has to do with it, too.
sub carried
{
	my ($transport, $from, $to) = @_;
	my ($source, $target, $third) = map { $nodes[ $_ - 1 ] } $from, $to, 6 - $from - $to;
	my $slots = $source->safe_psql('app', "SELECT djactor_cluster.slots($from)");
	my ($key, $watcher, $failing, $paused) = map { key_of($source, $from, "$_$from") } 'kit', 'watcher', 'failing', 'paused';
	# which stay
	my ($asker, $stays) = ("\@$from/asker", "\@$from/watcher");
	my $run = sub { as_role($_[0], 'app', 'app', $_[1]) };
	# send($node, $key, $what, $options): returns the id
	my $send = sub {
		my ($node, $key, $what, $options) = @_;

		return $run->($node, sprintf q{SELECT djactor.send('t.kit', '%s', '%s'%s)}, $key, $what =~ /^\{/ ? $what : qq({"what": "$what"}), $options ? ", $options" : '');
	};
	my $got = sub {
		my ($node, $key) = @_;

		return $node->safe_psql('app', "SELECT string_agg(w, ' ' ORDER BY n) FROM djactor.actor, jsonb_array_elements_text(state->'got') WITH ORDINALITY AS g (w, n) WHERE actor_key = '$key'");
	};
	# rows(): what is compared; of mail the ids may change, and of asks the sender
	my $rows = sub {
		my ($node) = @_;

		return $node->safe_psql('app', q{
			SELECT 'actor', to_jsonb(r) FROM djactor.actor r WHERE actor_type = 't.kit' AND actor_key !~ '^@'
			UNION ALL SELECT 'actor_identity', to_jsonb(r) FROM djactor.actor_identity r WHERE actor_type = 't.kit' AND actor_key !~ '^@'
			UNION ALL SELECT 'timer', to_jsonb(r) FROM djactor.timer r
			UNION ALL SELECT 'dead_letter', to_jsonb(r) FROM djactor.dead_letter r
			UNION ALL SELECT 'idempotency', to_jsonb(r) FROM djactor.idempotency r
			UNION ALL SELECT 'watch', to_jsonb(r) FROM djactor.watch r
			UNION ALL SELECT 'journal', to_jsonb(r) FROM djactor.journal r WHERE actor_key !~ '^@'
			UNION ALL SELECT 'message', to_jsonb(r) - CASE WHEN deliver_at IS NULL AND aside IS NULL THEN 'id' ELSE '' END
				- CASE WHEN wants_reply THEN '{sender_type,sender_key}' ELSE '{}'::text[] END
				|| jsonb_build_object('place', row_number() OVER (PARTITION BY deliver_at IS NULL AND aside IS NULL, actor_key ORDER BY id))
				FROM djactor.message r WHERE actor_type = 't.kit' AND actor_key !~ '^@'
			ORDER BY 1, 2});
	};

	$run->($nodes[0], "SELECT djactor_cluster.execute(\$run\$$kit\$run\$)") unless $nodes[0]->safe_psql('app', q{SELECT 1 FROM djactor.actor_type WHERE name = 't.kit'});
	# handled before: a key, a deferred ask from outside and one from another node, one that is stashed, one that is rejected, one that fails
	$send->($source, $key, 'keyed', q{idempotency_key => 'once'});
	my @later = ([ $source, $send->($source, $key, 'later', 'wants_reply => true') ], [ $third, $send->($third, $key, 'later', 'wants_reply => true') ]);
	$send->($source, $key, 'stash');
	$send->($source, $key, 'reject');
	$send->($source, $_, qq({"what": "watch", "key": "$key"})) for $watcher, $stays;
	$send->($source, $failing, 'first');
	ok(wait_until('they are handled', sub { $source->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.kit' AND aside IS NULL}) eq '0' &&
		$third->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.message') eq '0' }), "$transport: actors of node $from");
	$send->($source, $failing, 'fail');
	ok(wait_until('it has failed', sub { $source->safe_psql('app', q{SELECT attempts FROM djactor.message WHERE actor_type = 't.kit' AND attempts > 0}) eq '1' }), '... one of which has failed');
	$run->($source, qq{
		SELECT djactor.schedule('t.kit', '$key', 'tick', every => '1 hour', payload => '{"what": "tick"}');
		SELECT djactor.schedule('t.kit', '$key', 'once', after => '1 day');
		SELECT djactor.pause('t.kit', '$key', 'once');
		SELECT djactor.pause('t.kit', '$watcher')});
	# waits: with priorities, delays, a duplicate, a message for each coalesce key, and asks of four kinds
	$run->($_, q{SELECT djactor.pause('t.kit')}) for @nodes;
	$send->($source, $key, 'a');
	$send->($source, $key, 'b', 'priority => 5');
	$send->($source, $key, 'keyed again', q{idempotency_key => 'once'});
	$send->($source, $key, 'delayed', q{deliver_at => now() + '1 day', headers => '{"tenant": "acme"}', expires_at => now() + '2 days'});
	$send->($source, $key, 'merged', q{coalesce_key => 'c'}) for 1, 2;
	my @asks = ([ $source, $send->($source, $key, 'ask from here', 'wants_reply => true') ], [ $third, $send->($third, $key, 'ask from there', 'wants_reply => true') ],
		[ $target, $send->($target, $key, 'ask from the target', 'wants_reply => true') ]);
	# an actor that stays asks: its own type is not paused
	$run->($source, qq{SELECT djactor.send('t.asks', '$asker', '{"what": "ask", "key": "$key", "say": {"what": "ask of an actor"}}')});
	$send->($source, $paused, 'never handled before');
	ok(wait_until('they wait', sub { $source->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.kit' AND attempts = 0 AND aside IS NULL AND kind = 'user'}) eq '11' }), '... and mail');

	my $before = $rows->($source);
	move($from, $slots, $to);
	is($rows->($target), $before, "all that they have comes to node $to");
	is($rows->($source), '', '... and nothing of it is left');
	is($source->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.ask'), 0, '... nor the return address of an ask');
	is(as_role($_, 'app', 'app', "SELECT node FROM djactor_cluster.actor WHERE actor_type = 't.kit' AND actor_key = '$key'"), $to, '... which all nodes see there') for @nodes;

	# what is sent now comes behind; each ask gets its answer where it was asked
	$send->($_, $key, 'z') for $third, $source, $target;
	$run->($_, q{SELECT djactor.resume('t.kit')}) for @nodes;
	is($run->($_->[0], "SELECT djactor.wait_reply($_->[1], '60 s')->>'what' LIKE 'ask from%'"), 't', 'an ask is answered where it was asked') for @asks;
	ok(wait_until('it is handled', sub { $got->($target, $key) =~ /z z z$/ }), 'what is sent afterwards is handled');
	is($got->($target, $key), 'keyed later later b a merged ask from here ask from there ask from the target ask of an actor z z z', '... all in order, and no duplicate')
		if $transport eq 'direct';
	like($got->($target, $key), qr/^keyed later later b a merged ask from here (?=.*ask from there)(?=.*ask from the target)(?=.*ask of an actor).* z z z$/, '... in order, and no duplicate');
	ok(wait_until('an answer', sub { $source->safe_psql('app', qq{
		SELECT state->'answer'->>'what' FROM djactor.actor WHERE actor_type = 't.asks' AND actor_key = '$asker' AND state->'asked' = state->'answered'}) eq 'ask of an actor' }),
		'an actor of the source gets its answer, under the id that it knows');
	$send->($third, $key, 'now');
	is($run->($_->[0], "SELECT djactor.wait_reply($_->[1], '60 s')"), '"late"', 'a deferred ask is answered where it was asked') for @later;
	$send->($third, $key, 'open');
	$run->($target, qq{SELECT djactor.run_now('t.kit', '$key', 'tick'); SELECT djactor.redrive(id) FROM djactor.dead_letter WHERE actor_key = '$key';
		SELECT djactor.resume('t.kit', '$key', 'once'); SELECT djactor.run_now('t.kit', '$key', 'once')});
	ok(wait_until('they are handled', sub { my $g = $got->($target, $key); !grep { $g !~ /\b$_\b/ } 'stash', 'tick', 'reject', 'timer' }), 'stash, timers and dead letters are there');
	is($run->($target, qq{SELECT djactor.resume('t.kit', '$watcher'); SELECT djactor.stop_actor('t.kit', '$key')}), "\nt", 'the actor is stopped');
	ok(wait_until('a notice', sub { $got->($_->[0], $_->[1]) =~ /down/ }), '... and its watchers hear of it') for [ $target, $watcher ], [ $source, $stays ];
	ok(wait_until('all answers have been sent', sub { !grep { $_->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_type = 'djactor_cluster.answers'}) } @nodes }), 'nothing is left on the way');
	is($_->safe_psql('app', q{SELECT count(*) FROM djactor_cluster.ask}), 0, '... nor a return address') for @nodes;

	# back again
	$run->($source, qq{SELECT djactor.erase('t.asks', '$asker'), djactor.erase('t.kit', '$stays')});
	$run->($target, q{SELECT djactor.erase('t.kit', actor_key) FROM (SELECT actor_key FROM djactor.actor WHERE actor_type = 't.kit' UNION SELECT actor_key FROM djactor.message WHERE actor_type = 't.kit'
		UNION SELECT actor_key FROM djactor.journal UNION SELECT actor_key FROM djactor.dead_letter) k});
	move($to, $slots, $from);
}

for my $transport ('direct', 'outbox')
{
	@nodes = new_cluster(transport => $transport, nodes => 3, library => $library);
	$super = $nodes[0]->safe_psql('app', 'SELECT current_user');
	mapped();
	as_role($nodes[0], 'app', 'app', q{SELECT djactor_cluster.execute($run$
		CREATE TABLE stop (now boolean);
		CREATE PROCEDURE post_on(sender int, keys int) LANGUAGE plpgsql AS $$
		DECLARE
			seq int := 1;
		BEGIN
			WHILE NOT EXISTS (SELECT FROM stop) LOOP
				PERFORM post_all(sender, seq, 1 + seq % 7, keys);
				COMMIT;
				seq := seq + 1 + seq % 7;
				PERFORM pg_sleep(0.005);
			END LOOP;
		END $$ $run$)});

	carried($transport, 2, 1);
	carried($transport, 1, 3);

	#
	# Under load
	#
	my $all = q{SELECT array_agg(DISTINCT djactor_cluster.slot_of_key(key)) FROM (SELECT 'k' || g FROM generate_series(0, %d - 1) g) k (key) WHERE djactor_cluster.is_here(key)};
	for my $keys (13, 1000)
	{
		start_posting($keys);
		ok(wait_until('mail on all nodes', sub { !grep { $_->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $sender - 1") < 3 } @nodes }),
			"$transport: $keys actors");
		# there and back, and round
		for my $move ([ 1, 2 ], [ 2, 3 ], [ 3, 1 ], [ 2, 1 ], [ 1, 3 ])
		{
			my ($from, $to) = @$move;
			my $slots = $nodes[ $from - 1 ]->safe_psql('app', sprintf $all, $keys) || next;

			move($from, $slots, $to);
			is($_->safe_psql('app', "SELECT count(*) FROM unnest('$slots'::int[]) s WHERE s = ANY (djactor_cluster.slots($to))"),
				() = $slots =~ /\d+/g, "all nodes know that the slots of $from are on node $to") for @nodes;
			is($nodes[ $from - 1 ]->safe_psql('app', sprintf q{
				SELECT (SELECT count(*) FROM djactor_cluster.cargo), count(*) FROM (SELECT actor_key FROM djactor.message UNION ALL SELECT actor_key FROM djactor.actor) k
				WHERE actor_key LIKE 'k%%'}), '0|0', '... and nothing of them is left');
		}
		is(stop_posting(), '', 'no sender got an error');
		ok(all_handled(@nodes), 'all is handled');
		cmp_ok(check_moved(@nodes), '>', 100, '... once and in order');
	}
	$_->stop, $_->clean_node for @nodes;
}
done_testing();
