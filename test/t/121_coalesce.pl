# Messages with a coalesce key under load: senders that send without end keep nobody from being handled, nothing is lost, and what
# is handled is never older than what was handled before; also when workers are killed, and with hosts that give up.
# Section 3, points 3, 6 and 9.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('coalesce', 'djactor.idle_timeout' => '1s');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE done (serial bigserial, id bigint, key text, sender int, seq int);
	CREATE FUNCTION note(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO done (id, key, sender, seq) VALUES ((djactor.message()).id, (djactor.message()).actor_key, (message->>'sender')::int, (message->>'seq')::int);
		IF random() < 0.02 THEN
			RAISE EXCEPTION 'fails at random';
		END IF;
		RETURN message;
	END $$;
	CREATE PROCEDURE stream(sender int, mode text, seconds float, OUT last int) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + make_interval(secs => seconds);
	BEGIN
		last := 0;
		WHILE clock_timestamp() < until LOOP
			last := last + 1;
			PERFORM djactor.send('t.merge', mode || sender % 2, jsonb_build_object('sender', sender, 'seq', last), coalesce_key => 'k',
				coalesce_mode => nullif(mode, 'debounce'), debounce => CASE mode WHEN 'debounce' THEN interval '300 ms' END,
				debounce_limit => CASE mode WHEN 'debounce' THEN interval '500 ms' END);
			COMMIT;
		END LOOP;
	END $$;
	SELECT djactor.define_actor_type('t.merge', 'note', initial_state => '{}', journal => '1 h', max_attempts => 50, breaker_failures => NULL,
		backoff => '10 ms', backoff_max => '20 ms')});

# streams($mode): two senders to one actor; the last number of each
sub streams
{
	my ($mode, $seconds, $kill) = @_;
	my @senders = map { session($node, 'app', 'app') } 0 .. 1;

	$senders[$_]->start("CALL stream(@{[ 2 * $_ ]}, '$mode', $seconds, NULL)") for 0 .. 1;
	if ($kill)
	{
		for (1 .. 6)
		{
			sleep $seconds / 8;
			$node->safe_psql('app', q{SELECT pg_terminate_backend(pid) FROM djactor.worker});
		}
	}
	my @last = map { $_->finish } @senders;
	$_->quit for @senders;
	return @last;
}

for my $mode ('replace', 'keep', 'debounce')
{
	my @last = streams($mode, 4, 0);

	ok(wait_drained($node, 'app'), "$mode: all mail is dealt with");
	my $turns = $node->safe_psql('app', "SELECT turns FROM djactor.actor WHERE actor_key = '${mode}0'");
	my $n = $node->safe_psql('app', "SELECT count(*) FROM done WHERE key = '${mode}0'");

	note("$mode: " . ($last[0] + $last[1]) . " messages, $turns turns");
	cmp_ok($turns, '>=', 5, "$mode: others that come keep none from its turn") if $mode eq 'debounce';
	cmp_ok($turns, '>=', 50, "$mode: others that come keep none from its turn") if $mode ne 'debounce';
	cmp_ok($turns, '<=', 14, "$mode: a turn at most each half second, and the rest") if $mode eq 'debounce';
	is($n, $turns, "$mode: what is handled is handled once");
	is($node->safe_psql('app', "SELECT count(*), count(*) FILTER (WHERE outcome = 'handled') FROM djactor.journal WHERE actor_key = '${mode}0'"),
		($last[0] + $last[1]) . "|$turns", "$mode: each message is handled, or merged into another one");
	is($node->safe_psql('app', qq{
		SELECT count(*) FROM (SELECT seq, max(seq) OVER (PARTITION BY sender ORDER BY serial ROWS UNBOUNDED PRECEDING EXCLUDE CURRENT ROW) AS before
			FROM done WHERE key = '${mode}0') x WHERE seq <= before}), 0, "$mode: none is handled after a later one of its sender");
	next if $mode eq 'keep';
	# the senders' ids are not in the order of their commits
	my $end = $node->safe_psql('app', "SELECT sender || ' ' || seq FROM done WHERE key = '${mode}0' ORDER BY serial DESC LIMIT 1");
	ok((grep { $_ eq $end } "0 $last[0]", "2 $last[1]"), "$mode: the last one of a sender is handled, and last") or diag($end);
}

# Workers that are ended all the time.
$node->safe_psql('app', 'TRUNCATE done; DELETE FROM djactor.journal');
my @last = streams('replace', 4, 1);
ok(wait_drained($node, 'app'), 'with workers that are ended: all mail is dealt with');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.journal'), $last[0] + $last[1], 'each message is handled, or merged');
is($node->safe_psql('app', q{SELECT count(*), count(DISTINCT id) FROM done}), $node->safe_psql('app', q{SELECT count(*), count(*) FROM djactor.journal WHERE outcome = 'handled'}), 'once');

# Many keys of one actor: the cost of a message does not depend on how many wait.
as_role($node, 'app', 'app', q{
	CREATE FUNCTION nothing(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
	SELECT djactor.define_actor_type('t.keys', 'nothing')});
my %seconds;

for my $n (4000, 40000)
{
	$node->safe_psql('app', qq{SELECT djactor.pause('t.keys');
		INSERT INTO djactor.message (actor_type, actor_key, coalesce_key) SELECT 't.keys', 'k', 'key ' || n / 2 FROM generate_series(0, @{[ 2 * $n - 1 ]}) n;
		SELECT djactor.resume('t.keys')});
	my $start = time;

	ok(wait_drained($node, 'app'), "$n keys are handled");
	$seconds{$n} = time - $start;
}
is($node->safe_psql('app', q{SELECT turns FROM djactor.actor WHERE actor_type = 't.keys'}), 44000, 'one message of each');
cmp_ok($seconds{40000} / 40000, '<', 4 * $seconds{4000} / 4000 + 0.0001, 'each takes as long among many');
note(join ', ', map { sprintf '%d keys: %.2f s', $_, $seconds{$_} } sort { $a <=> $b } keys %seconds);

# An old snapshot, which keeps all that was merged in the index: it makes no difference how much that is.
my $old = session($node, 'app', 'app');
my @rates;

$old->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM djactor.message');
for my $round (1 .. 6)
{
	my $start = time;

	as_role($node, 'app', 'app', q{
		DO $$ BEGIN
			FOR n IN 1 .. 400 LOOP
				INSERT INTO djactor.message (actor_type, actor_key, coalesce_key) SELECT 't.keys', 'old', 'k' FROM generate_series(1, 25);
				COMMIT;
			END LOOP;
		END $$});
	ok(wait_drained($node, 'app'), "round $round: 10000 messages of one key");
	push @rates, 10000 / (time - $start);
}
$old->quit;
note('messages a second, under an old snapshot: ' . join(', ', map { int } @rates));
cmp_ok($rates[5], '>', $rates[1] / 3, 'as many in the last round as in the second');

done_testing();
