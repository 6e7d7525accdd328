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

#
# Kills between any two steps
#

# Where move_slots() is stopped: a trigger on a table of which node, which waits, or kills as late as can be. What dies then, and whether the slots have
# left the source, as it knows, and have come to the target.
my @stops = (
	{ at => 'source', on => 'BEFORE UPDATE ON djactor_cluster.here', dies => 'source', left => 0, come => 0 },
	{ at => 'source', on => 'BEFORE UPDATE ON djactor_cluster.here', dies => 'target', left => 0, come => 0 },
	{ at => 'target', on => 'BEFORE UPDATE ON djactor_cluster.here', dies => 'target', left => 0, come => 0 },
	{ at => 'source', on => 'AFTER INSERT ON djactor_cluster.cargo', dies => 'itself', left => 0, come => 0 },
	{ at => 'target', on => 'BEFORE INSERT ON djactor_cluster.landing', dies => 'source', left => 1, come => 0 },
	{ at => 'target', on => 'BEFORE INSERT ON djactor_cluster.landing', dies => 'target', left => 1, come => 0 },
	{ at => 'source', on => 'BEFORE DELETE ON djactor_cluster.cargo', dies => 'source', left => 1, come => 0 },
	{ at => 'source', on => 'BEFORE DELETE ON djactor_cluster.cargo', dies => 'target', left => 1, come => 0 },
	{ at => 'source', on => 'AFTER DELETE ON djactor_cluster.cargo', dies => 'itself', left => 1, come => 1 });

sub killed
{
	my ($transport, $from, $to, $stop) = @_;
	my ($source, $target, $third) = map { $nodes[ $_ - 1 ] } $from, $to, 6 - $from - $to;
	my $at = $stop->{at} eq 'source' ? $source : $target;
	my $slots = slots_of($source, map { "k$_" } 0 .. 12);
	my $key;

	$slots = $source->safe_psql('app', "SELECT array_agg(s) FROM unnest('$slots'::int[]) s WHERE s = ANY (djactor_cluster.slots($from))");
	$key = $source->safe_psql('app', "SELECT 'k' || g FROM generate_series(0, 12) g WHERE djactor_cluster.is_here('k' || g) LIMIT 1");
	$at->safe_psql('app', $stop->{dies} eq 'itself' ?
		"CREATE TRIGGER stops $stop->{on} FOR EACH STATEMENT EXECUTE FUNCTION late_failure('kill', '1'); ALTER TABLE djactor_cluster.cargo ENABLE ALWAYS TRIGGER stops" :
		"CREATE TRIGGER stops $stop->{on} FOR EACH ROW EXECUTE FUNCTION halts()");

	my $halted = log_count($at, qr/move_slots\(\) is halted/);
	my $starts = log_count($source, qr/ready to accept connections/);
	my $halt = session($at, 'app', $super);
	my $moving = session($source, 'app', $super);

	$halt->query('SELECT pg_advisory_lock(77)');
	$moving->start("CALL djactor_cluster.move_slots('$slots', $to)");
	if ($stop->{dies} eq 'itself')
	{
		ok(wait_until('it is back', sub { log_count($source, qr/ready to accept connections/) > $starts }), "$transport: a kill at the end of $stop->{on}");
	}
	else
	{
		ok(wait_until('it is halted', sub { log_count($at, qr/move_slots\(\) is halted/) > $halted }), "$transport: $stop->{on} of the $stop->{at}, and the $stop->{dies} dies");
		if ($stop->{dies} eq 'source')
		{
			my ($pid) = $source->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%move_slots%' AND pid <> pg_backend_pid()});

			kill_backend($source, $pid);
		}
		else
		{
			$target->stop('immediate');
			$target->start;
		}
	}
	eval { $halt->quit };
	eval { $moving->finish };
	like($moving->{err} . $@, qr/ERROR|server closed the connection|session ended/, 'the move was broken off');
	eval { $moving->quit };
	ok(wait_until('the trigger is gone', sub { ($at->psql('app', "SET lock_timeout = '1s'; DROP TRIGGER stops " . ($stop->{on} =~ s/.* ON/ON/r)))[0] == 0 }), '... which the servers have noticed');
	is($source->safe_psql('app', "SELECT count(*) > 0 FROM unnest('$slots'::int[]) s WHERE s = ANY (djactor_cluster.slots($from))"), $stop->{left} ? 'f' : 't', '... where it was to be');
	is($target->safe_psql('app', "SELECT count(*) > 0 FROM djactor_cluster.here WHERE slots[ ('$slots'::int[])[1] + 1 ] = $to AND ('$slots'::int[])[1] <> ALL (moving)"), $stop->{come} ? 't' : 'f', '... on both nodes');
	if ($stop->{left} && !$stop->{come})
	{
		is($_->safe_psql('app', "SELECT count(*) FROM djactor.actor WHERE actor_key = '$key'"), 0, 'the actors are nowhere') for @nodes;
		like(($target->psql('app', "\\set VERBOSITY verbose\nSELECT djactor.send('t.work', '$key', '{}')", extra_params => [ '-U', 'app' ]))[2],
			qr/ERROR:  55P03: actors of slot \d+ are on their way to this node.*HINT:  Call djactor_cluster.move_slots\(\) again on the node from which they come/s, '... and who sends to them hears of it')
			if $stop == $stops[4];
		like(($target->psql('app', "CALL djactor_cluster.move_slots('$slots', $from)"))[2], qr/actors of slot \d+ are on their way to this node/, '... they cannot be moved from there');
		like(($source->psql('app', sprintf q{CALL djactor_cluster.move_slots('%s', %d)}, $slots, 6 - $from - $to))[2], qr/actors of slot \d+ are on their way to node $to/, '... nor elsewhere');
	}
	move($from, $slots, $to);
	is($source->safe_psql('app', q{SELECT count(*) FROM djactor_cluster.cargo}) . $target->safe_psql('app', q{SELECT moving FROM djactor_cluster.here}) .
		$source->safe_psql('app', q{SELECT moving FROM djactor_cluster.here}), '0{}{}', 'to call again finishes the move');
	is(move($from, $slots, $to), '', '... and once more does nothing');
	is($target->safe_psql('app', "SELECT count(*) FROM djactor.actor WHERE actor_type = 't.work' AND actor_key = '$key'"), 1, '... and the actors are there');
}

#
# Who waits for whom
#
sub waits
{
	my ($transport) = @_;
	my ($one, $two) = @nodes;
	my ($moves, $stays) = (key_of($one, 1, 'moves'), undef);
	my $slot = slots_of($one, $moves);
	my $slow = "CALL djactor_cluster.move_slots('$slot', 2, '100 ms')";
	my $moving = session($one, 'app', $super);
	my $other = session($one, 'app', 'app');

	# send($node, $key, $extra): a message of a sender of its own
	my $send = sub {
		my ($node, $key, $extra) = @_;

		$sender++;
		as_role($node, 'app', 'app', qq{BEGIN; INSERT INTO sent VALUES ($sender, 1, 't.work', '$key');
			SELECT djactor.send('t.work', '$key', '{"sender": $sender, "seq": 1}'::jsonb || '$extra'); COMMIT});
	};
	my $waits = sub {
		my ($regexp, $name) = @_;

		ok(wait_until('a notice', sub { $moving->finished; $moving->{err} =~ $regexp }), $name);
	};
	my $moved = sub {
		my ($name) = @_;

		$moving->finish;
		unlike($moving->{err}, qr/ERROR/, $name);
		is($_->safe_psql('app', "SELECT djactor_cluster.node_of_key('$moves')"), 2, '... all nodes know it') for @nodes;
	};
	my $back = sub { $two->safe_psql('app', "CALL djactor_cluster.move_slots('$slot', 1)") };

	($stays) = split /\n/, $one->safe_psql('app', "SELECT 'stays' || g FROM generate_series(1, 1000) g WHERE djactor_cluster.is_here('stays' || g) AND djactor_cluster.slot_of_key('stays' || g) <> ALL ('$slot')");

	# a turn of a stranger, and one of an actor that moves
	my $lock = session($one, 'app', 'app');
	$lock->query('SELECT pg_advisory_lock(99)');
	$send->($one, $stays, '{"lock": 99}');
	ok(wait_until('a turn', sub { $one->safe_psql('app', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99 AND NOT granted}) eq '1' }), "$transport: a turn takes long");
	$moving->start($slow);
	$moved->('... and holds up no move of others');
	$send->($one, $moves, '{}');
	ok(wait_until('a turn', sub { $two->safe_psql('app', "SELECT count(*) FROM ledger WHERE actor_key = '$moves'") eq '1' }), '... whose mail is handled meanwhile');
	$back->();
	$send->($one, $moves, '{"lock": 99}');
	ok(wait_until('a turn', sub { $one->safe_psql('app', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99 AND NOT granted}) eq '2' }), '... a turn of an actor that moves');
	$moving->start($slow);
	$moved->('... is run again where it has moved');
	$lock->query('SELECT pg_advisory_unlock(99)');
	ok(all_handled(@nodes), 'they are handled');
	is($_->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter') . $_->safe_psql('app', q{SELECT coalesce(sum(failures), 0) FROM djactor.actor}), '00', '... and nothing counts as failed') for @nodes;
	$back->();

	# in a transaction of its own a turn has locked its rows
	as_role($_, 'app', 'app', q{SELECT djactor.alter_actor_type('t.work', batch_size => 1)}) for @nodes;
	$lock->query('SELECT pg_advisory_lock(99)');
	$send->($one, $moves, '{"lock": 99}');
	ok(wait_until('a turn', sub { $one->safe_psql('app', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99 AND NOT granted}) eq '1' }), 'a turn in a transaction of its own');
	$moving->start($slow);
	$waits->(qr/NOTICE:  move_slots\(\) waits: canceling statement due to lock timeout/, '... is waited for');
	$send->($_, $moves, '{}') for @nodes;
	$send->($one, $stays, '{}');
	$lock->query('SELECT pg_advisory_unlock(99)');
	$moved->('... until it ends');
	ok(all_handled(@nodes), 'they are handled');
	$back->();
	as_role($_, 'app', 'app', q{SELECT djactor.alter_actor_type('t.work', batch_size => NULL)}) for @nodes;

	# a transaction that has sent, on each node, and had sent before under a savepoint that it has rolled back
	for my $node (@nodes)
	{
		my $open = session($node, 'app', 'app');

		$sender++;
		$open->query(qq{BEGIN; SAVEPOINT s; SELECT djactor.send('t.work', '$moves', '{}'); ROLLBACK TO s; INSERT INTO sent VALUES ($sender, 1, 't.work', '$moves');
			SELECT djactor.send('t.work', '$moves', '{"sender": $sender, "seq": 1}')});
		$moving->start($slow);
		# by transport direct the other node may say it
		$waits->(qr/NOTICE:  move_slots\(\) waits: transactions on node \d have sent to these actors\nDETAIL:  Processes: \d+/, 'a transaction that has sent is waited for');
		$send->($_, $moves, '{}') for grep { $_ != $node } @nodes;
		$send->($_, $stays, '{}') for @nodes;
		ok(!$moving->finished, '... by nobody else');
		$open->query('COMMIT');
		$open->quit;
		$moved->('... until it commits');
		$back->();
	}
	ok(all_handled(@nodes), 'they are handled');

	# a state that is changed by hand
	$other->query("BEGIN; UPDATE djactor.actor SET state = state || '{\"by\": \"hand\"}' WHERE actor_key = '$moves'");
	$moving->start($slow);
	$waits->(qr/NOTICE:  move_slots\(\) waits: canceling statement due to lock timeout/, 'who changes a state by hand is waited for');
	$other->query('COMMIT');
	$moved->('... until he commits');
	is($two->safe_psql('app', "SELECT state->>'by' FROM djactor.actor WHERE actor_key = '$moves'"), 'hand', '... and it comes along');
	$back->();
	$send->($_, $moves, '{}') for @nodes;
	ok(all_handled(@nodes), 'all is handled');
	check_moved(@nodes);
	$_->quit for $moving, $other, $lock;
}

#
# A host has a message whose actor moves
#
sub hosted
{
	my ($one, $two) = @nodes;
	my $key = key_of($one, 1, 'hosted');
	my @hosts = map { session($_, 'app', 'app') } $one, $two;

	as_role($one, 'app', 'app', q{SELECT djactor_cluster.define_actor_type('t.hosted', NULL, '{"hosted": true}')});
	as_role($one, 'app', 'app', qq{SELECT djactor.send('t.hosted', '$key', '{"n": 1}')});
	$_->query(q{SELECT djactor.host_open('{t.hosted}')}) for @hosts;
	my ($token, $id) = split /\|/, $hosts[0]->query('SELECT token, id FROM djactor.take(1)');
	ok($token, 'a host has a message');
	move(1, slots_of($one, $key), 2);
	is($hosts[0]->query(qq{SELECT djactor.complete('{$token}', '{$id}', array['{"done": 1}']::jsonb[])}), '{gone}', '... which is gone when the actor has moved');
	($token, $id) = split /\|/, $hosts[1]->query('SELECT token, id FROM djactor.take(1)');
	is($hosts[1]->query(qq{SELECT djactor.complete('{$token}', '{$id}', array['{"done": 2}']::jsonb[])}), '{done}', '... and is handled there');
	is(as_role($one, 'app', 'app', "SELECT node, state, turns FROM djactor_cluster.actor WHERE actor_key = '$key'"), '2|{"done": 2}|1', '... once');
	$_->quit for @hosts;
}

#
# Slots, tables of users, and what is refused
#
sub refused
{
	my ($one, $two) = @nodes;

	is($one->safe_psql('app', q{SELECT count(DISTINCT s) FROM generate_series(1, 3) n, unnest(djactor_cluster.slots(n)) s}), 256, 'each slot is on a node');
	is($one->safe_psql('app', q{SELECT djactor_cluster.slots(1) && djactor_cluster.slots(2), djactor_cluster.slots(9), djactor_cluster.slot_of_key('@2/x') IS NULL}), 'f|{}|t', '... and on one; keys that name a node have none');
	is($one->safe_psql('app', q{SELECT count(*) FROM generate_series(1, 1000) g WHERE djactor_cluster.slot_of_key('k' || g) <> ALL (djactor_cluster.slots(djactor_cluster.node_of_key('k' || g)))}), 0, '... as keys are');
	for my $call (
		[ q{'{1,1}', 2}, qr/ERROR:  22023: slots must be different numbers from 0 to 255\nHINT/ ],
		[ q{'{}', 2}, qr/ERROR:  22023: slots must be different numbers/ ],
		[ q{'{256}', 2}, qr/ERROR:  22023: slots must be different numbers/ ],
		[ q{'{-1}', 2}, qr/ERROR:  22023: slots must be different numbers/ ],
		[ q{'{NULL}', 2}, qr/ERROR:  22004: slots, node and patience must not be null/ ],
		[ q{NULL, 2}, qr/ERROR:  22004: slots, node and patience must not be null/ ],
		[ q{'{1}', NULL}, qr/ERROR:  22004: slots, node and patience must not be null/ ],
		[ q{'{1}', 2, NULL}, qr/ERROR:  22004: slots, node and patience must not be null/ ],
		[ q{'{1}', 2, '0 s'}, qr/ERROR:  22023: patience must be positive/ ],
		[ q{'{1}', 2, '2 min'}, qr/ERROR:  22023: patience must be positive/ ],
		[ q{'{1}', 1}, qr/ERROR:  42704: there is no other node 1/ ],
		[ q{'{1}', 4}, qr/ERROR:  42704: there is no other node 4/ ],
		[ '$$' . $one->safe_psql('app', 'SELECT (djactor_cluster.slots(3))[1:1]') . '$$, 2', qr/ERROR:  55000: slot \d+ is on node 3\nHINT:  Call djactor_cluster.move_slots\(\) there/ ])
	{
		fails("CALL djactor_cluster.move_slots($call->[0])", $call->[1], "move_slots($call->[0])");
	}
	my $own = $one->safe_psql('app', 'SELECT (djactor_cluster.slots(1))[1:1]');

	fails("BEGIN; CALL djactor_cluster.move_slots('$own', 2)", qr/ERROR:  2D000: actors cannot be moved in a transaction block/, 'in a transaction block');
	fails("SET default_transaction_isolation = 'repeatable read'; CALL djactor_cluster.move_slots('$own', 2)", qr/ERROR:  0A000: move_slots\(\) works with isolation level read committed only/, 'with another snapshot than the latest');
	fails("CALL djactor_cluster.move_slots('$own', 2)", qr/permission denied for procedure move_slots/, 'it is for superusers', 'app');
	fails(q{SELECT djactor_cluster.put(a) FROM djactor.actor a}, qr/permission denied for function put/, '... and so are its parts', 'app');
	fails(q{SELECT djactor_cluster.put(n) FROM djactor_cluster.node n}, qr/put\(\) takes rows of djactor's tables/, '... which take nothing else');
	fails(q{SELECT djactor_cluster.lock_slot(256)}, qr/slot must be between 0 and 255/, '... nor any slot');
	fails(q{INSERT INTO djactor_cluster.landing VALUES (1, 'djactor.actor', '')}, qr/permission denied for table landing/, '... nor does anybody else send rows', 'app');

	# a type that the target does not have
	my $key = $one->safe_psql('app', "SELECT 'own' || g FROM generate_series(1, 10000) g WHERE djactor_cluster.slot_of_key('own' || g) = ('$own'::int[])[1] LIMIT 1");
	as_role($one, 'app', 'app', qq{SELECT djactor.define_actor_type('t.only_here', 'kit'); SELECT djactor.send('t.only_here', '$key')});
	ok(wait_until('a turn', sub { $one->safe_psql('app', "SELECT count(*) FROM djactor.actor WHERE actor_key = '$key'") eq '1' }), 'an actor');
	fails("CALL djactor_cluster.move_slots('$own', 2)", qr/ERROR:  42704: actor type "t.only_here" does not exist on node 2\nHINT:  Define it there/, '... whose type the other node does not have');
	is($one->safe_psql('app', "SELECT count(*) FROM djactor.actor WHERE actor_key = '$key'"), 1, '... stays');
	as_role($two, 'app', 'app', q{SELECT djactor.define_actor_type('t.only_here', 'kit')});

	# a node that is down
	$nodes[2]->stop;
	fails("CALL djactor_cluster.move_slots('$own', 2)", qr/could not connect to server "node3"/, 'all nodes have to be there');
	$nodes[2]->start;
	is($one->safe_psql('app', "SELECT djactor_cluster.node_of_key('$key')"), 1, '... or nothing changes');

	# rows of a table of users come along, and plans that know where they are do not outlive that
	for my $node (@nodes)
	{
		as_role($node, 'app', 'app', q{CREATE TABLE note (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, room text NOT NULL, said jsonb, length int GENERATED ALWAYS AS (length(room)) STORED)});
		$node->safe_psql('app', q{SELECT djactor_cluster.spread_table('note', 'room')});
		as_role($node, 'app', 'app', "INSERT INTO note (room, said) VALUES ('$key', 'null'), ('$key', NULL)");
	}
	my @readers = map { session($_, 'app', 'app') } @nodes;
	$_->query("PREPARE reads AS SELECT count(*), count(said), sum(length) / length('$key') FROM note WHERE room = '$key'") for @readers;
	is($_->query('EXECUTE reads'), '6|3|6', 'rows of a table of users') for @readers;
	move(1, $own, 2);
	is($_->query('EXECUTE reads'), '6|3|6', '... come along') for @readers;
	is($two->safe_psql('app', 'SELECT count(*) FROM ONLY note_here'), 6, '... to the node of their actor');
	is($one->safe_psql('app', 'SELECT count(*) FROM ONLY note_here'), 0, '... and leave the other one');
	$_->quit for @readers;
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
				IF seq % 5 = 0 THEN
					INSERT INTO sent VALUES (sender + 100000, seq, 't.work', 'k' || seq % keys);
					PERFORM djactor.send('t.relay', 'k' || seq % keys, jsonb_build_object('sender', sender + 100000, 'seq', seq));
					COMMIT;
				END IF;
				seq := seq + 1 + seq % 7;
				PERFORM pg_sleep(0.005);
			END LOOP;
		END $$;
		-- asks the worker of its key, which moves as it does, and has a timer
		CREATE FUNCTION relay(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
		DECLARE
			m djactor.message := djactor.message();
		BEGIN
			IF m.kind = 'user' THEN
				PERFORM djactor.send('t.work', m.actor_key, message, wants_reply => true);
				PERFORM djactor.set_timer('tick', after => '20 ms');
			END IF;
			RETURN state || jsonb_build_object(m.kind, coalesce((state->>m.kind)::int, 0) + 1);
		END $$;
		SELECT djactor.define_actor_type('t.relay', 'relay', breaker_failures => NULL) $run$)});

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
		is($_->safe_psql('app', q{SELECT count(*) FROM djactor.actor WHERE actor_type = 't.relay'
			AND (state->'user' = state->'reply' AND state ? 'timer' AND turns = (SELECT sum(value::int) FROM jsonb_each_text(state))) IS NOT TRUE}), 0,
			'each ask of an actor was answered once, and its timer has come') for @nodes;
		is($_->safe_psql('app', 'SELECT (SELECT count(*) FROM djactor.timer) + (SELECT count(*) FROM djactor.dead_letter WHERE actor_type <> $$t.kit$$)'), 0, '... and nothing is left') for @nodes;
	}

	#
	# Kills. By transport direct what is sent meanwhile may be sent although the sender fails; so nobody sends then, but mail waits.
	#
	$_->safe_psql('app', q{
		CREATE FUNCTION late_failure() RETURNS trigger LANGUAGE c AS '} . $library . q{';
		CREATE FUNCTION halts() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NOT pg_try_advisory_xact_lock_shared(77) THEN
				RAISE LOG 'move_slots() is halted';
				WHILE NOT pg_try_advisory_xact_lock_shared(77) LOOP
					PERFORM pg_sleep(0.01);
				END LOOP;
			END IF;
			RETURN coalesce(NEW, OLD);
		END $$}) for @nodes;
	for my $i (0 .. $#stops)
	{
		my ($from, $to) = $i % 2 ? (2, 1) : (1, 2);

		if ($transport eq 'outbox')
		{
			start_posting(13);
			ok(wait_until('mail', sub { $nodes[2]->safe_psql('app', "SELECT count(*) FROM sent WHERE sender = $sender - 1") > 10 }), 'while all send');
		}
		else
		{
			$_->safe_psql('app', q{SELECT djactor.pause('t.work')}) for @nodes;
			as_role($nodes[$_], 'app', 'app', sprintf 'SELECT post_all(%d, 1, 100, 13)', $sender++) for 0 .. 2;
		}
		move(3, $nodes[2]->safe_psql('app', sprintf $all, 13) || next, $from) if $i == 0;
		killed($transport, $from, $to, $stops[$i]);
		$transport eq 'outbox' ? stop_posting() : $_->safe_psql('app', q{SELECT djactor.resume('t.work')}) for @nodes;
	}
	ok(all_handled(@nodes), 'all is handled');
	cmp_ok(check_moved(@nodes), '>', 100, '... once and in order');

	waits($transport);
	if ($transport eq 'direct')
	{
		hosted();
		refused();
	}
	$_->stop, $_->clean_node for @nodes;
}
done_testing();
