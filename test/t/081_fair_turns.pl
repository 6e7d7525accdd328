# Service is first come, first served, also when handlers are slow (contract 28).
#
# Each of many actors has a backlog, and a turn takes longer than batch_time.  Whenever one looks, the actors' numbers of
# turns differ by two at most, with one, two and four workers; also when each third message fails at first; by little
# more when there are more of them than the run queue has room for.  Who asks a fresh actor waits for about one turn of
# each.  What a worker that is ended had claimed keeps its place.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('turns', 'djactor.poll_interval' => '1h', fsync => 'off');
my $sender = 0;

new_app($node, 'app');

# look($type, $keys, $rounds): what was seen until each actor of a type has had so many turns: the greatest
# difference between two of them.
sub look
{
	my ($type, $keys, $rounds) = @_;
	my ($worst, $looks) = (0, 0);

	wait_until("$rounds rounds", sub {
		my ($least, $most) = split /\|/, $node->safe_psql('app', qq{
			SELECT coalesce(min(turns), 0), coalesce(max(turns), 0) FROM generate_series(0, $keys - 1) k
			LEFT JOIN LATERAL (SELECT count(*) AS turns FROM ledger WHERE sender = $sender AND actor_key = 'k' || k) l ON true});

		$worst = $most - $least if $most - $least > $worst;
		$looks++;
		return $least >= $rounds;
	});
	note("$looks looks");
	return $worst;
}

for my $workers (1, 2, 4)
{
	my $keys = 16 * $workers;

	$node->append_conf('postgresql.conf', "djactor.max_workers = $workers\n");
	$node->restart;
	for my $fail (0, 1)
	{
		my $type = "t.fair$workers$fail";
		my $rounds = 8;

		define_work($node, 'app', 'app', $type);
		$sender++;
		# the backlog is there when the first turn begins, and does not end before the last look
		as_role($node, 'app', 'app', qq{
			SELECT djactor.pause('$type');
			INSERT INTO sent SELECT $sender, s, '$type', 'k' || s % $keys FROM generate_series(1, $keys * 15) s;
			INSERT INTO djactor.message (actor_type, actor_key, payload)
				SELECT '$type', actor_key, jsonb_build_object('sender', sender, 'seq', seq, 'sleep', 0.025,
					'fail', CASE WHEN (seq % $keys + seq / $keys) % 3 = 0 THEN $fail ELSE 0 END)
				FROM sent WHERE sender = $sender ORDER BY seq;
			SELECT djactor.resume('$type')});
		cmp_ok(look($type, $keys, $rounds), '<=', 2,
			"$keys actors, $workers workers" . ($fail ? ', turns fail now and then' : '') . ': their numbers of turns differ by two at most');
		# how many turns came before that of one who asks now
		my $before = $node->safe_psql('app', qq{
			SELECT djactor.send('$type', 'fresh', '{"sender": 0, "seq": $sender}');
			COMMIT;
			SELECT count(*) FROM ledger}) =~ /(\d+)$/ ? $1 : undef;
		ok(wait_until('the fresh actor', sub { $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = 0 AND seq = $sender") eq '1' }),
			'... a fresh actor has its turn');
		my $after = $node->safe_psql('app', qq{
			SELECT count(*) FROM ledger WHERE serial < (SELECT serial FROM ledger WHERE sender = 0 AND seq = $sender)});
		cmp_ok($after - $before, '<=', $keys + 2 * $workers, '... when the others had had about one');
		cmp_ok($node->safe_psql('app', "SELECT count(*) FROM djactor.message WHERE actor_type = '$type'"), '>', 0, '... and there was mail for all of them');
		as_role($node, 'app', 'app', qq{INSERT INTO sent VALUES (0, $sender, '$type', 'fresh')});
		ok(wait_drained($node, 'app'), '... which is handled');
	}
}

# Short turns, many in a batch: errors that have one turn run alone, and the others again, favour nobody
$node->append_conf('postgresql.conf', "djactor.max_workers = 1\n");
$node->restart;
as_role($node, 'app', 'app', q{
	CREATE FUNCTION stumble(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		m djactor.message := djactor.message();
	BEGIN
		IF message ? 'code' AND m.attempts = 0 AND m.put_offs = 0 THEN
			RAISE EXCEPTION 'stumbles' USING ERRCODE = message->>'code';
		END IF;
		RETURN work(state, message);
	END $$});
for my $code ('P0001', '42P01', '40001')
{
	my $type = "t.stumble$code";
	my $worst = 0;

	$sender++;
	as_role($node, 'app', 'app', qq{
		SELECT djactor.define_actor_type('$type', 'public.stumble', backoff => '1 ms');
		SELECT djactor.pause('$type');
		INSERT INTO sent SELECT $sender, s, '$type', 'k' || s % 200 FROM generate_series(1, 5000) s;
		INSERT INTO djactor.message (actor_type, actor_key, payload)
			SELECT actor_type, actor_key, jsonb_build_object('sender', sender, 'seq', seq, 'sleep', 0.001)
				|| CASE WHEN seq % 97 = 0 THEN '{"code": "$code"}' ELSE '{}' END::jsonb
			FROM sent WHERE sender = $sender ORDER BY seq;
		SELECT djactor.resume('$type')});
	wait_until('fifteen rounds', sub {
		my ($least, $most) = split /\|/, $node->safe_psql('app', qq{
			SELECT min(turns), max(turns) FROM (
				SELECT count(serial) AS turns FROM generate_series(0, 199) k LEFT JOIN ledger ON sender = $sender AND actor_key = 'k' || k
				WHERE NOT EXISTS (SELECT FROM sent WHERE sender = $sender AND actor_key = 'k' || k AND seq % 97 = 0) GROUP BY k) t});

		$worst = $most - $least if $most - $least > $worst;
		return $least >= 15;
	});
	cmp_ok($worst, '<=', 2, "200 actors, some of them fail with $code: the others' numbers of turns differ by two at most");
	ok(wait_drained($node, 'app'), '... all is handled');
}

# Who ends a worker takes nobody's place: what it had is served next, in its order
{
	my $type = 't.ended';

	define_work($node, 'app', 'app', $type);
	$sender++;
	for my $seq (0 .. 5)
	{
		# each in a transaction of its own, so that they wait in this order
		as_role($node, 'app', 'app', qq{
			INSERT INTO sent VALUES ($sender, $seq, '$type', 'k$seq');
			SELECT djactor.send('$type', 'k$seq', '{"sender": $sender, "seq": $seq, "sleep": 2}')});
	}
	for my $ended (1, 2)
	{
		my ($pid, $id);

		wait_until('a turn that lasts', sub {
			($pid, $id) = split /\|/, $node->safe_psql('app', q{SELECT pid, message_id FROM djactor.worker WHERE message_id IS NOT NULL});
			return $id;
		});
		ok($node->safe_psql('app', "SELECT pg_terminate_backend($pid)") eq 't', "worker $ended of two is ended in a turn");
		wait_until('its end', sub { $node->safe_psql('app', "SELECT count(*) FROM djactor.worker WHERE pid = $pid") eq '0' });
	}
	ok(wait_drained($node, 'app'), '... all is handled');
	is($node->safe_psql('app', "SELECT string_agg(seq::text, ' ' ORDER BY serial) FROM ledger WHERE sender = $sender"),
		'0 1 2 3 4 5', '... in the order in which it waited');
}

# ... but if each worker that has it is ended, others have a turn, too
{
	my $type = 't.endless';
	my $ended = 0;
	my $sent;

	define_work($node, 'app', 'app', $type, 'concurrency => 1');
	$sender++;
	as_role($node, 'app', 'app', qq{SELECT djactor.send('$type', 'long', '{"sleep": 600}')});
	as_role($node, 'app', 'app', qq{
		INSERT INTO sent VALUES ($sender, 0, '$type', 'k');
		SELECT djactor.send('$type', 'k', '{"sender": $sender, "seq": 0}')});
	while ($ended < 12 && $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $sender") eq '0')
	{
		my $pid = wait_until('the long turn', sub {
			$node->safe_psql('app', "SELECT pid FROM djactor.worker WHERE actor_type = '$type' AND since < clock_timestamp() - interval '50 ms'");
		});

		$node->safe_psql('app', "SELECT pg_terminate_backend($pid)");
		wait_until('its end', sub { $node->safe_psql('app', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") eq '0' });
		$ended++;
	}
	cmp_ok($ended, '<', 8, 'who is behind a turn that is ended over and over has his turn');
	as_role($node, 'app', 'app', "SELECT djactor.pause('$type')");
	wait_until('the end of the long turn', sub {
		$node->safe_psql('app', "SELECT count(pg_terminate_backend(pid)) FROM djactor.worker WHERE actor_type = '$type' AND message_id IS NOT NULL") eq '0'
	});
	as_role($node, 'app', 'app', "SELECT djactor.cancel(id) FROM djactor.message WHERE actor_type = '$type'");
}

# Five times as many actors with mail as the run queue has room for
$node->append_conf('postgresql.conf', "djactor.run_queue_size = 64\n");
for my $workers (1, 2)
{
	my $type = "t.crowd$workers";

	$node->append_conf('postgresql.conf', "djactor.max_workers = $workers\n");
	$node->restart;
	define_work($node, 'app', 'app', $type);
	$sender++;
	as_role($node, 'app', 'app', qq{
		SELECT djactor.pause('$type');
		SELECT post($sender, 1, 320 * 12, '$type', 320, '{"sleep": 0.002}');
		SELECT djactor.resume('$type')});
	wait_until('the first turns', sub { $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $sender") > 100 });
	# of another type
	as_role($node, 'app', 'app', qq{SELECT post(1000 + $sender, 1, 1, 't.work', 1)});
	# a sweep has them in another order than the queue
	cmp_ok(look($type, 320, 8), '<=', 4,
		"320 actors, a run queue of 64, $workers workers: their numbers of turns differ by a few at most");
	cmp_ok($node->safe_psql('app', qq{
		SELECT count(*) FROM ledger WHERE sender = $sender AND serial < (SELECT serial FROM ledger WHERE sender = 1000 + $sender)}),
		'<', 320 * 3, '... and another type is handled meanwhile');
	ok(wait_drained($node, 'app'), '... all is handled');
}
check_ledger($node, 'app');
$node->stop;
done_testing();
