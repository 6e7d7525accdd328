# In a deadlock between a session and a worker it is the worker that gives way, and soon (contract 31).
#
# Whatever deadlock_timeout ALTER ROLE gives the type's owner; whoever waits first; in a turn alone, in a batch, and in a type
# whose turns have savepoints.  No attempt is used up, and the message is handled once the session is done.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('deadlock', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', 'djactor.batch_time' => '60s', fsync => 'off');

new_app($node, 'app');
$node->safe_psql('app', q{ALTER ROLE app SET deadlock_timeout = '10s'});
as_role($node, 'app', 'app', q{
	CREATE TABLE item (id text PRIMARY KEY, n int NOT NULL DEFAULT 0);
	INSERT INTO item VALUES ('a'), ('b');
	CREATE TABLE told (round int);
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'fails once' AND (djactor.message()).attempts = 0 THEN
			RAISE EXCEPTION 'fails once';
		END IF;
		IF message ? 'first' THEN
			UPDATE item SET n = n + 1 WHERE id = message->>'first';
		END IF;
		IF message ? 'told' THEN
			LOOP
				EXIT WHEN EXISTS (SELECT FROM told WHERE round = (message->>'told')::int);
				PERFORM pg_sleep(0.01);
			END LOOP;
		END IF;
		IF message ? 'second' THEN
			UPDATE item SET n = n + 1 WHERE id = message->>'second';
		END IF;
		RETURN work(state, message);
	END $$;
	SELECT djactor.define_actor_type('t.alone', 'public.step', max_attempts => 1, batch_size => 1),
		djactor.define_actor_type('t.batch', 'public.step', max_attempts => 1),
		djactor.define_actor_type('t.savepoints', 'public.step', max_attempts => 2, backoff => '1 ms');
	-- from now on
	SELECT djactor.send('t.savepoints', 'k0', '{"fails once": true, "sender": 0, "seq": 0}')});
ok(wait_drained($node, 'app'), 'a type that has had a failure');
as_role($node, 'app', 'app', q{INSERT INTO sent VALUES (0, 0, 't.savepoints', 'k0')});

my $round = 0;
my $web = session($node, 'app');

$web->query(q{SET deadlock_timeout = '1s'});

sub mail
{
	my ($type, @payloads) = @_;
	my $seq = 0;

	return as_role($node, 'app', 'app', "BEGIN;\n" . join('', map {
		$seq++;
		qq{SELECT post($round, $seq, 1, '$type', 5, '$_');\n} } @payloads) . 'COMMIT');
}

sub worker_waits { return wait_until('the worker waits', sub { $node->safe_psql('app', q{
	SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'djactor worker' AND wait_event_type = 'Lock'}) ne '0' }) }

# the session gets what it wants, and everything is handled afterwards
sub session_wins
{
	my ($type, $n) = @_;

	ok(wait_until('the session', sub { $web->finished }), '... the session gets what it waits for');
	$web->finish;
	is($web->{err}, '', '... and no error');
	is($node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $round AND seq = $n"), 0, '... while the message waits');
	$web->query('COMMIT');
	ok(wait_drained($node, 'app'), '... all is handled afterwards');
	is($node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $round"), $n, '... once');
	is($node->safe_psql('app', "SELECT sum(failures) FROM djactor.actor WHERE actor_type = '$type'"), 0,
		'... and has used up no attempt');
}

for my $type ('t.alone', 't.batch', 't.savepoints')
{
	# one turn wants both rows
	$round++;
	$web->query(q{BEGIN; UPDATE item SET n = n + 100 WHERE id = 'b'});
	mail($type, '{"first": "a", "second": "b"}');
	ok(worker_waits(), "$type: the worker waits first");
	$web->start(q{UPDATE item SET n = n + 100 WHERE id = 'a'});
	session_wins($type, 1);

	$round++;
	$web->query(q{BEGIN; UPDATE item SET n = n + 100 WHERE id = 'b'});
	mail($type, qq({"first": "a", "told": $round, "second": "b"}));
	ok(wait_until('the worker has its row', sub { $node->safe_psql('app', q{
		SELECT count(*) FROM (SELECT FROM item WHERE id = 'a' FOR UPDATE SKIP LOCKED) i}) eq '0' }), "$type: the worker has one row");
	$web->start(q{UPDATE item SET n = n + 100 WHERE id = 'a'});
	ok(wait_until('the session waits', sub { $node->safe_psql('app', q{
		SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND wait_event_type = 'Lock'}) ne '0' }), '... the session waits first');
	as_role($node, 'app', 'app', "INSERT INTO told VALUES ($round)");
	session_wins($type, 1);

	# two turns of a batch want one each
	$round++;
	$web->query(q{BEGIN; UPDATE item SET n = n + 100 WHERE id = 'b'});
	mail($type, '{"first": "a"}', '{"first": "b"}');
	ok(worker_waits(), "$type: two turns, the worker waits in the second");
	$web->start(q{UPDATE item SET n = n + 100 WHERE id = 'a'});
	session_wins($type, 2);
}
is($node->safe_psql('app', q{SELECT string_agg(n::text, ' ') FROM item}), '909 909', 'no update is lost');
$web->quit;
check_ledger($node, 'app');
$node->stop;
done_testing();
