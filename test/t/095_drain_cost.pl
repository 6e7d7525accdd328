# What drain() handles costs the same however much it has handled before, though all of that stays in the indexes until its
# transaction ends: some index entries for each turn.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('drain_cost', 'djactor.poll_interval' => '1h', 'djactor.max_workers' => 1, fsync => 'off', autovacuum => 'off');

new_database($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION public.ticks(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'set' THEN
			PERFORM djactor.set_timer('tick', every => '1 min');
		END IF;
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('t.ticks', 'public.ticks');

	CREATE FUNCTION public.next(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		n int := (message->>'n')::int;
	BEGIN
		IF n > 1 THEN
			PERFORM djactor.send('t.next', CASE WHEN message->'many' = 'true' THEN 'k' || n ELSE 'k' END, message || jsonb_build_object('n', n - 1));
		END IF;
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('t.next', 'public.next');

	CREATE FUNCTION public.fails(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION 'it fails'; END $$;
	SELECT djactor.define_actor_type('t.fails', 'public.fails', max_attempts => 10000, backoff => '1 s', backoff_max => '1 s', breaker_failures => NULL);

	CREATE FUNCTION public.busy(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
		$$ BEGIN RAISE lock_not_available; END $$;
	SELECT djactor.define_actor_type('t.busy', 'public.busy', max_attempts => 10000, backoff => '1 s', backoff_max => '1 s', breaker_failures => NULL);

	-- delays of others are no burden
	INSERT INTO djactor.message (actor_type, actor_key, deliver_at) SELECT 't.ticks', 'o' || i, now() + '10 days' FROM generate_series(1, 500) i});

# reads($send, $drain): index entries
sub reads
{
	my ($send, $drain) = @_;
	my ($handled, $read) = split /\n/, as_role($node, 'app', 'app', qq{
		\\o /dev/null
		BEGIN;
		SELECT $send;
		\\o
		SELECT $drain;
		SELECT sum(pg_stat_get_xact_tuples_returned(oid)) FROM pg_class
			WHERE oid = ANY(ARRAY['djactor.message_mailbox', 'djactor.message_due', 'djactor.message_aside']::regclass[]);
		ROLLBACK});

	note("$drain: $handled handled, $read entries");
	return $read;
}

sub linear
{
	my ($name, $send, $drain) = @_;

	cmp_ok(reads($send->($_), $drain->($_)), '<', 20 * $_, "$name: $_") for 100, 400;
}

my $once = sub { 'djactor.drain()' };

linear('firings of a timer', sub { q{djactor.send('t.ticks', 'k', '{"set": true}')} }, sub { "djactor.drain(until => now() + $_[0] * interval '1 min')" });
linear('messages that follow each other in a mailbox', sub { qq{djactor.send('t.next', 'k', '{"n": $_[0]}')} }, $once);
linear('... each in a mailbox of its own', sub { qq{djactor.send('t.next', 'k', '{"n": $_[0], "many": true}')} }, $once);
linear('attempts that fail', sub { q{djactor.send('t.fails', 'k')} }, sub { "djactor.drain(until => now() + $_[0] * interval '1 s', on_error => 'retry')" });
linear('attempts that are put off', sub { q{djactor.send('t.busy', 'k')} }, sub { "djactor.drain(until => now() + $_[0] * interval '1 s', on_error => 'retry')" });

$node->stop;
done_testing();
