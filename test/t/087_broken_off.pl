# A turn that is broken off, since it takes long and others share its transaction (contract 7 and 31).
#
# Handlers that catch the cancel, and even go on, come to nothing all the same, and run again alone; so do turns with a savepoint.  Once it runs alone nobody cancels it.  All effects are there once, no attempt is used up.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('broken', 'djactor.max_workers' => 4, 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE told (round int);
	CREATE TABLE caught (round int);
	CREATE SEQUENCE calls;
	CREATE SEQUENCE catches;
	CREATE SEQUENCE others;
	CREATE FUNCTION until_told(told_round int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			EXIT WHEN EXISTS (SELECT FROM told WHERE round = told_round);
			PERFORM pg_sleep(0.01);
		END LOOP;
	END $$;
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'fails once' AND (djactor.message()).attempts = 0 THEN
			RAISE EXCEPTION 'fails once';
		ELSIF message ? 'until' AND (djactor.self()).actor_type IN ('t.catches', 't.goes.on') THEN
			PERFORM nextval('calls');
			BEGIN
				PERFORM until_told((message->>'until')::int);
			EXCEPTION WHEN query_canceled THEN
				PERFORM nextval('catches');
				INSERT INTO caught VALUES ((message->>'until')::int);
			END;
			IF (djactor.self()).actor_type = 't.goes.on' THEN
				PERFORM until_told((message->>'until')::int);
			END IF;
		ELSIF message ? 'until' THEN
			PERFORM nextval('calls');
			PERFORM until_told((message->>'until')::int);
		ELSE
			PERFORM nextval('others');
		END IF;
		RETURN work(state, message);
	END $$;
	SELECT djactor.define_actor_type(name, 'public.step', max_attempts => 2, backoff => '1 ms', handler_timeout => '5 min')
		FROM unnest('{t.catches,t.goes.on,t.plain,t.savepoints}'::text[]) name;
	-- from now on there is a savepoint around each turn of the type
	SELECT djactor.send('t.savepoints', 'k0', '{"fails once": true, "sender": 0, "seq": 0}')});
ok(wait_drained($node, 'app'), 'a type that has had a failure');
as_role($node, 'app', 'app', q{INSERT INTO sent VALUES (0, 0, 't.savepoints', 'k0')});

sub counted { return $node->safe_psql('app', qq{SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM $_[0]}) }

my $round = 0;
for my $type ('t.catches', 't.goes.on', 't.plain', 't.savepoints')
{
	for my $place (5, 10)
	{
		$round++;
		# paused until all of it is there: one worker takes it in one batch
		as_role($node, 'app', 'app', qq{
			SELECT setval('calls', 1, false), setval('catches', 1, false), setval('others', 1, false);
			SELECT djactor.pause('$type');
			INSERT INTO sent SELECT $round, s, '$type', 'k' || s FROM generate_series(1, 10) s;
			INSERT INTO djactor.message (actor_type, actor_key, payload)
				SELECT actor_type, actor_key, jsonb_build_object('sender', sender, 'seq', seq) || CASE seq WHEN $place THEN '{"until": $round}' ELSE '{}' END::jsonb
				FROM sent WHERE sender = $round ORDER BY seq;
			SELECT djactor.resume('$type')});
		ok(wait_until('the others', sub { $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $round") eq '9' }, 20),
			"$type: message $place of 10 takes long: the others are handled meanwhile");
		is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 1, '... while it runs');
		ok(wait_until('it runs', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.worker WHERE message_id IS NOT NULL') eq '1' }), '... alone');
		# several times as long as it takes to be broken off
		$node->safe_psql('app', 'SELECT pg_sleep(0.5)');
		cmp_ok(counted('calls'), '<=', 2, '... it was broken off once at most');
		cmp_ok(counted('catches'), '<=', 1, '... and is left alone now');
		cmp_ok(counted('others'), '<=', 18, '... the others were called twice at most');
		as_role($node, 'app', 'app', "INSERT INTO told VALUES ($round)");
		ok(wait_drained($node, 'app'), '... it ends');
	}
}
is($node->safe_psql('app', 'SELECT count(*) FROM caught'), 0, 'what was done after the cancel was caught is not there');
is($node->safe_psql('app', 'SELECT sum(failures) FROM djactor.actor'), 0, 'no attempt was used up');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'nothing was given up');
check_ledger($node, 'app');
$node->stop;
done_testing();
