# Messages with a coalesce key under load: senders that send without end keep nobody from being handled, nothing is lost, and what
# is handled is never older than what was handled before; also when workers are killed, and with hosts that give up.
# Section 3, points 3, 6 and 9.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep);

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
	# one that waited for the senders would have its only turn after them
	cmp_ok($turns, '>=', $mode eq 'debounce' ? 3 : 50, "$mode: others that come keep none from its turn");
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

# What a message costs is counted in entries of indexes, in a database of its own; in the end, as many messages are deleted.
new_app($node, 'many');
as_role($node, 'many', 'app', q{
	CREATE FUNCTION nothing(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
	SELECT djactor.define_actor_type('t.keys', 'nothing')});

my $few = 20;    # entries; some 5 are usual, and 50 if a scan began with what is merged
my ($entries, $deleted) = (0, 0);

# entries_for($messages): the entries that were read for each of the last messages, which are deleted
sub entries_for
{
	my ($messages) = @_;
	my $before = $entries;

	$deleted += $messages;
	# sessions tell what they did after a second
	wait_until("$deleted messages are deleted",
		sub { $node->safe_psql('many', q{SELECT n_tup_del FROM pg_stat_user_tables WHERE relid = 'djactor.message'::regclass}) == $deleted });
	$entries = $node->safe_psql('many', q{SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relid = 'djactor.message'::regclass});
	return ($entries - $before) / $messages;
}

# Many keys of one actor: the cost of a message does not depend on how many wait.
my %cost;

for my $n (4000, 40000)
{
	$node->safe_psql('many', qq{SELECT djactor.pause('t.keys');
		INSERT INTO djactor.message (actor_type, actor_key, coalesce_key) SELECT 't.keys', 'k', 'key ' || n / 2 FROM generate_series(0, @{[ 2 * $n - 1 ]}) n;
		SELECT djactor.resume('t.keys')});
	ok(wait_drained($node, 'many'), "$n keys are handled");
	$cost{$n} = entries_for(2 * $n);
}
is($node->safe_psql('many', q{SELECT turns FROM djactor.actor WHERE actor_type = 't.keys'}), 44000, 'one message of each');
cmp_ok($cost{$_}, '<', $few, "each of $_ costs little") for 4000, 40000;
note(join ', ', map { sprintf '%d keys: %.1f entries each', $_, $cost{$_} } sort { $a <=> $b } keys %cost);

# An old snapshot, which keeps all that was merged in the index: it makes no difference how much that is.
my $old = session($node, 'many', 'app');
my @costs;

$old->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM djactor.message');
for my $round (1 .. 6)
{
	as_role($node, 'many', 'app', q{
		DO $$ BEGIN
			FOR n IN 1 .. 400 LOOP
				INSERT INTO djactor.message (actor_type, actor_key, coalesce_key) SELECT 't.keys', 'old', 'k' FROM generate_series(1, 25);
				COMMIT;
			END LOOP;
		END $$});
	ok(wait_drained($node, 'many'), "round $round: 10000 messages of one key");
	push @costs, entries_for(10000);
}
$old->quit;
note('entries for a message, under an old snapshot: ' . join(', ', map { sprintf '%.1f', $_ } @costs));
cmp_ok($costs[$_ - 1], '<', $few, "round $_: each costs little") for 1 .. 6;

done_testing();
