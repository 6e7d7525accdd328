# Contract 26, 27: pg_dump of a database under load, with waiting mail, delays, timers and dead letters, restored into
# another server in each way there is.  What was committed at the dump's moment arrives, as one: state, mailboxes and
# user tables agree; nothing of it runs until djactor.resume(), and then each message is handled once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_server('origin', 'djactor.max_workers' => 2);
my $other = new_server('other', 'djactor.max_workers' => 2);

new_app($node, 'app');
define_work($node, 'app', 'app', 't.paused');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION broken(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS
		$$ BEGIN RAISE EXCEPTION 'broken'; END $$;
	CREATE FUNCTION ticks(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'set' THEN
			PERFORM djactor.set_timer('tick', every => '300 ms', payload => '{"tick": true}');
			PERFORM djactor.set_timer('once', after => '1 h', payload => '{"once": true}');
		END IF;
		RETURN jsonb_build_object('ticks', coalesce((state->>'ticks')::int, 0) + 1);
	END $$;
	SELECT djactor.define_actor_type('t.broken', 'public.broken', max_attempts => 1);
	SELECT djactor.define_actor_type('t.ticks', 'public.ticks');
	SELECT djactor.send('t.broken', 'k' || g) FROM generate_series(1, 5) g;
	SELECT djactor.pause('t.paused');
	SELECT post(1, 1, 300, 't.paused', 30);
	SELECT djactor.send('t.work', 'later', '{"sender": 2, "seq": 1}', deliver_at => clock_timestamp() + '1 h');
	INSERT INTO sent VALUES (2, 1, 't.work', 'later');
	SELECT djactor.send('t.ticks', 'k', '{"set": true}')});
ok(wait_until('dead letters and timers', sub {
	$node->safe_psql('app', q{SELECT (SELECT count(*) FROM djactor.dead_letter) + (SELECT count(*) FROM djactor.timer)}) eq '7' }),
	'there are dead letters and timers');
start_sender($node, 'app', 'app', id => 10 + $_, fail => 50, pause => 0.01) for 1 .. 2;

$other->safe_psql('postgres', 'CREATE ROLE app LOGIN');
my $folder = PostgreSQL::Test::Utils::tempdir();
my %ways = (
	plain => [ [ '-Fp' ], undef ],
	custom => [ [ '-Fc' ], [] ],
	parallel => [ [ '-Fc' ], [ '-j', '4' ] ],
	directory => [ [ '-Fd', '-j', '4' ], [ '-j', '4' ] ],
	inserts => [ [ '-Fc', '--inserts' ], [ '-j', '4' ] ]);
my $each_once = q{
	SELECT count(*) FROM
		(SELECT sender, seq, count(*) FILTER (WHERE was_sent) AS sent, count(*) FILTER (WHERE NOT was_sent) AS seen
		FROM (SELECT sender, seq, true AS was_sent FROM sent
			UNION ALL SELECT sender, seq, false FROM ledger
			UNION ALL SELECT (payload->>'sender')::int, (payload->>'seq')::int, false FROM djactor.message
				WHERE payload ? 'sender') x
		GROUP BY 1, 2) y
	WHERE sent <> 1 OR seen <> 1};

for my $how (sort keys %ways)
{
	my ($dump, $restore) = @{ $ways{$how} };
	my $before = $node->safe_psql('app', 'SELECT count(*) FROM ledger');
	my $handled;

	ok(wait_until('load', sub { $node->safe_psql('app', 'SELECT count(*) FROM ledger') > $before + 50 }), "$how: there is load");
	command_ok([ 'pg_dump', @$dump, '-f', "$folder/$how", '-d', $node->connstr('app') ], "$how: pg_dump");
	$other->safe_psql('postgres', "CREATE DATABASE $how OWNER app");
	ok($restore ? run_log([ 'pg_restore', '-e', @$restore, '-d', $other->connstr($how), "$folder/$how" ])
		: run_log([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr($how), '-f', "$folder/$how" ]), "$how: restored");
	is($other->safe_psql($how, $each_once), 0, "$how: each message that was committed by then was handled, or waits");
	cmp_ok($other->safe_psql($how, 'SELECT count(*) FROM djactor.message'), '>=', 303, "$how: paused and delayed mail and timers are there");
	is($other->safe_psql($how, q{SELECT (SELECT count(*) FROM djactor.dead_letter) || ' ' || (SELECT count(*) FROM djactor.timer)}), '5 2',
		"$how: dead letters and timers too");
	is($other->safe_psql($how, 'SELECT djactor.held()'), 't', "$how: it is held");
	$handled = $other->safe_psql($how, 'SELECT (SELECT count(*) FROM ledger), (SELECT sum(turns) FROM djactor.actor)');
	sleep 0.7;
	is($other->safe_psql($how, 'SELECT (SELECT count(*) FROM ledger), (SELECT sum(turns) FROM djactor.actor)'), $handled,
		"$how: nothing runs, no timer fires");

	my $ticks = q{SELECT (state->>'ticks')::int FROM djactor.actor WHERE actor_type = 't.ticks'};
	my $ticked = $other->safe_psql($how, $ticks);
	as_role($other, $how, 'app', q{SELECT djactor.resume(); SELECT djactor.resume('t.paused')});
	ok(wait_until("mail of $how", sub {
		$other->safe_psql($how, q{SELECT count(*) FROM djactor.message WHERE actor_type IN ('t.work', 't.paused')}) eq '1' }),
		"$how: after resume() what was due is handled");
	ok(wait_until('a tick', sub { $other->safe_psql($how, $ticks) > $ticked }), "$how: and the timer ticks on");
	is($other->safe_psql($how, $each_once), 0, "$how: each message was handled once, but for the one that is to come");
	is($other->safe_psql($how, q{
		SELECT * FROM (SELECT actor_type, actor_key, count(*) FROM ledger GROUP BY 1, 2) l
		JOIN djactor.actor a USING (actor_type, actor_key) WHERE a.turns <> l.count OR (a.state->>'turn')::int <> l.count}), '',
		"$how: state agrees");
	is(as_role($other, $how, 'app', q{SELECT djactor.cancel(djactor.send('t.paused', 'k')) FROM djactor.actor LIMIT 1}), 't',
		"$how: the database's owner may do there what it could");
	$other->safe_psql($how, q{SELECT djactor.redrive(id) FROM djactor.dead_letter LIMIT 1});
	ok(wait_until('a redriven message', sub { $other->safe_psql($how, q{SELECT count(*) FROM djactor.dead_letter WHERE redrives > 0}) eq '1' }),
		"$how: a dead letter can be redriven");
	$other->safe_psql('postgres', "DROP DATABASE $how");
}

my $known = stop_senders();
$node->safe_psql('app', q{SELECT djactor.stop_actor('t.ticks', 'k'); SELECT djactor.resume('t.paused')});
ok(wait_until('mail', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.message') eq '1' }), 'the original runs on');
is($node->safe_psql('app', $each_once), 0, 'and has handled its own');
$node->stop;
$other->stop;
done_testing();
