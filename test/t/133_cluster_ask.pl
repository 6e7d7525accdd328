# Asks across nodes, by all transports: an actor gets its answer as a message, under the id that it knows, and no double of it
# appears on the other node; who asks from outside waits with wait_reply(). Errors are answers, too, and each ask has one.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ClusterTest;
use DjactorTest;
use Test::More;

for my $transport ('outbox', 'direct', has_citus() ? 'citus' : ())
{
	# by outbox, another role than the owner's forwards
	my ($one, $two) = my @nodes = new_cluster(transport => $transport, $transport eq 'outbox' ? (role => 'carrier') : ());
	my $asker = key_of($one, 1, 'asker');
	my $adder = key_of($one, 2, 'adder');

	as_role($one, 'app', 'app', q{SELECT djactor_cluster.execute($run$
		-- answers the sum of all it has got; fails, defers and so on if it is told to
		CREATE FUNCTION adds(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
		DECLARE
			sum int := coalesce((state->>'sum')::int, 0) + coalesce((message->>'add')::int, 0);
		BEGIN
			IF message ? 'fail' THEN
				RAISE EXCEPTION 'told to fail';
			ELSIF message ? 'reject' THEN
				PERFORM djactor.reject('told to reject');
			ELSIF message ? 'error' THEN
				PERFORM djactor.reply_error('{"no": "sum"}');
				RETURN djactor.result(state, NULL);
			ELSIF message ? 'later' THEN
				RETURN djactor.result(state || jsonb_build_object('later', djactor.defer_reply()), NULL);
			ELSIF message ? 'now' THEN
				PERFORM djactor.reply('"late"', (state->>'later')::bigint);
				RETURN djactor.result(state - 'later', NULL);
			END IF;
			RETURN djactor.result(jsonb_build_object('sum', sum), jsonb_build_object('sum', sum));
		END $$;
		SELECT djactor.define_actor_type('t.adds', 'adds', max_attempts => 2, backoff => '10 ms', breaker_failures => NULL);
		-- keeps what it is told, and sends on what it is asked to
		CREATE FUNCTION asks(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
		DECLARE
			m djactor.message := djactor.message();
		BEGIN
			IF m.kind = 'user' THEN
				RETURN state || jsonb_build_object('asked', djactor.send('t.adds', message->>'to', message->'say', wants_reply => true));
			END IF;
			RETURN state || jsonb_build_object('kind', m.kind, 'answer', message, 'answered', m.in_reply_to, 'by', m.sender_key, 'reason', m.meta->'reason',
				'answers', coalesce((state->>'answers')::int, 0) + 1, 'headers', m.headers);
		END $$;
		SELECT djactor.define_actor_type('t.asks', 'asks')
	$run$)});
	# ask($say): what an actor gets
	my $answers = 0;
	my $ask = sub {
		my ($say) = @_;

		as_role($one, 'app', 'app', qq{SELECT djactor.send('t.asks', '$asker', '{"to": "$adder", "say": $say}', headers => '{"tenant": "acme"}')});
		$answers++;
		wait_until('an answer', sub { $one->safe_psql('app', "SELECT state->>'answers' FROM djactor.actor WHERE actor_key = '$asker'") eq $answers });
		return $one->safe_psql('app', qq{SELECT state->>'kind', state->'answer', state->>'answered' = state->>'asked', state->>'by', state->>'reason', state->>'headers'
			FROM djactor.actor WHERE actor_key = '$asker'});
	};

	is($ask->('{"add": 3}'), "reply|{\"sum\": 3}|t|$adder||{\"tenant\": \"acme\"}", "$transport: an actor gets the answer of one on the other node");
	is($ask->('{"add": 4}'), "reply|{\"sum\": 7}|t|$adder||{\"tenant\": \"acme\"}", '... and the next');
	is($ask->('null'), "reply|{\"sum\": 7}|t|$adder||{\"tenant\": \"acme\"}", '... and to a JSON null');
	like($ask->('{"fail": 1}'), qr/^error\|.*told to fail.*\|t\|$adder\|failed\|/, '... and an error');
	like($ask->('{"reject": 1}'), qr/^error\|.*told to reject.*\|t\|$adder\|rejected\|/, '... one that is rejected');
	like($ask->('{"error": 1}'), qr/^error\|\{"no": "sum"\}\|t\|$adder\|error\|/, '... one that the handler gives');

	# sent, then committed, then waited for
	my $outside = sub {
		my ($say) = @_;
		my $id = as_role($one, 'app', 'app', qq{SELECT djactor.send('t.adds', '$adder', '$say', wants_reply => true)});
		my (undef, $reply, $error) = $one->psql('app', "SELECT djactor.wait_reply($id, '20 s')", extra_params => [ '-U', 'app' ]);

		return $reply . $error;
	};
	is($outside->('{"add": 5}'), '{"sum": 12}', 'who asks from outside gets the answer');
	like($outside->('{"fail": 1}'), qr/was answered by an error.*told to fail/s, '... or an error');
	as_role($two, 'app', 'app', q{SELECT djactor.pause('t.adds')});
	my $early = as_role($one, 'app', 'app', qq{SELECT djactor.send('t.adds', '$adder', '{"add": 6}', wants_reply => true)});
	my $waits = session($one, 'app', 'app');
	$waits->start("SELECT djactor.wait_reply($early, '60 s')");
	ok(wait_until('it waits', sub { $one->safe_psql('app', q{SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT djactor.wait_reply' AND wait_event_type = 'Extension'}) eq '1' }),
		'... or waits for it');
	as_role($two, 'app', 'app', q{SELECT djactor.resume('t.adds')});
	is($waits->finish, '{"sum": 18}', '... until it comes');
	$waits->quit;
	my $late = as_role($one, 'app', 'app', qq{SELECT djactor.send('t.adds', '$adder', '{"later": 1}', wants_reply => true)});
	as_role($one, 'app', 'app', qq{SELECT djactor.send('t.adds', '$adder', '{"now": 1}')});
	is(as_role($one, 'app', 'app', "SELECT djactor.wait_reply($late, '20 s')"), '"late"', '... or one that was deferred');
	as_role($two, 'app', 'app', q{SELECT djactor.pause('t.adds')});
	my $cancelled = as_role($one, 'app', 'app', qq{SELECT djactor.send('t.adds', '$adder', '{}', wants_reply => true)});
	ok(wait_until('it has arrived', sub { $two->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.adds'}) eq '1' }), 'an ask waits');
	as_role($two, 'app', 'app', q{SELECT djactor.cancel(id) FROM djactor.message WHERE actor_type = 't.adds'});
	like(($one->psql('app', "SELECT djactor.wait_reply($cancelled, '20 s')", extra_params => [ '-U', 'app' ]))[2], qr/answered by an error.*cancelled/s, '... and is cancelled there');
	as_role($two, 'app', 'app', q{SELECT djactor.resume('t.adds')});

	# on the own node nothing is different
	my $near = key_of($one, 1, 'near');
	my $id = as_role($one, 'app', 'app', qq{SELECT djactor.send('t.adds', '$near', '{"add": 1}', wants_reply => true)});
	is(as_role($one, 'app', 'app', "SELECT djactor.wait_reply($id, '20 s')"), '{"sum": 1}', 'an ask on the own node');

	if ($transport eq 'outbox')
	{
		as_role($one, 'app', 'app', q{SELECT djactor.define_actor_type('t.only_here', 'asks')});
		$id = as_role($one, 'app', 'app', qq{SELECT djactor.send('t.only_here', '$adder', wants_reply => true)});
		like(($one->psql('app', "SELECT djactor.wait_reply($id, '20 s')", extra_params => [ '-U', 'app' ]))[2],
			qr/answered by an error.*actor type .*t\.only_here.* does not exist.*rejected/s, 'an ask that the other node does not take');
	}

	ok(all_handled(@nodes), 'nothing waits');
	is($two->safe_psql('app', 'SELECT count(*) FROM djactor_cluster.ask'), 0, 'no return address is left');
	is($two->safe_psql('app', q{SELECT count(*) FROM djactor.actor WHERE actor_type = 't.asks'}), 0, 'there is no double of the actor that has asked');
	is($one->safe_psql('app', "SELECT state->>'answers' FROM djactor.actor WHERE actor_key = '$asker'"), $answers, 'each ask had one answer');

	# nobody but nodes sends answers
	as_role($one, 'app', 'app', q{SELECT djactor.send('djactor_cluster.answers', '@1', '{"id": 42, "reply": "forged"}')});
	ok(wait_until('a dead letter', sub { $one->safe_psql('app', q{SELECT reason, error FROM djactor.dead_letter WHERE actor_type = 'djactor_cluster.answers'}) eq 'rejected|only nodes send answers' }),
		'an answer cannot be forged');
	is($one->safe_psql('app', 'SELECT count(*) FROM djactor.reply WHERE message_id = 42'), 0, '... and is not kept');
	$_->stop, $_->clean_node for @nodes;
}
done_testing();
