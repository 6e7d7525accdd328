# A turn that takes long keeps no stranger waiting (contract 28 and 31).
#
# Messages to many actors of two types are committed at once.  The handler of one of them goes on until it is told to
# end: whichever of them it is, all others are handled, committed and seen while it still runs, and it has been called
# twice at most, once if its type is one for which repetition could be seen from outside.  The same if it waits for a lock.
# With a single worker nobody can help; but what was handled before is committed, and its locks are free.
# So it is with actors that the worker has looked at just before the long turn, and that could not have a turn then.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('slow', 'djactor.max_workers' => 4, 'djactor.poll_interval' => '1h', fsync => 'off');
my $round = 0;

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE told (round int);
	CREATE SEQUENCE calls;
	CREATE TABLE item (id int PRIMARY KEY, n int);
	INSERT INTO item VALUES (1, 0);
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'until' THEN
			PERFORM nextval('calls');
			LOOP
				EXIT WHEN EXISTS (SELECT FROM told WHERE round = (message->>'until')::int);
				PERFORM pg_sleep(0.01);
			END LOOP;
		ELSIF message ? 'lock' THEN
			PERFORM nextval('calls');
		ELSIF message ? 'item' THEN
			UPDATE item SET n = n + 1 WHERE id = (message->>'item')::int;
		END IF;
		RETURN work(state, message);
	END $$;
	SELECT djactor.define_actor_type(name, 'public.step', max_attempts => 1, handler_timeout => '5 min',
		batch_size => CASE name WHEN 't.one' THEN 1 END)
	FROM unnest('{t.some,t.other,t.one}'::text[]) name});

# how often the slow handler has been called since the last question
sub calls
{
	return as_role($node, 'app', 'app', q{
		SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM calls; SELECT setval('calls', 1, false)}) =~ /^(\d+)/ ? $1 : undef;
}

# sixteen($type, $extra, @slow): so many messages to as many actors, every other one of type t.other; those at the
# places @slow are of $type, and slow.
sub sixteen
{
	my ($type, $extra, @slow) = @_;
	my $slow = join ',', @slow;

	$round++;
	as_role($node, 'app', 'app', qq{
		BEGIN;
		INSERT INTO sent SELECT $round, s, CASE WHEN s IN ($slow) THEN '$type' WHEN s % 2 = 0 THEN 't.some' ELSE 't.other' END, 'k' || s
			FROM generate_series(1, 16) s;
		INSERT INTO djactor.message (actor_type, actor_key, payload)
			SELECT actor_type, actor_key, jsonb_build_object('sender', sender, 'seq', seq) || CASE WHEN seq IN ($slow) THEN '$extra'::jsonb ELSE '{}' END
			FROM sent WHERE sender = $round ORDER BY seq;
		COMMIT});
}

sub others_done
{
	my ($n, $name) = @_;

	ok(wait_until('the others', sub { $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = $round") == $n }, 20), $name);
}

sub let_end { return as_role($node, 'app', 'app', "INSERT INTO told VALUES ($round)") }

for my $type (qw(t.some t.other t.one))
{
	for my $place (1, 2, 8, 15, 16)
	{
		sixteen($type, sprintf('{"until": %d}', $round + 1), $place);
		others_done(15, "message $place of 16, of type $type, takes long: the others are handled meanwhile");
		is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 1, '... and it still runs');
		let_end();
		ok(wait_drained($node, 'app'), '... it ends');
		cmp_ok(calls(), '<=', $type eq 't.one' ? 1 : 2, '... and was not called more often than it may be');
	}
}

# one that waits for a lock, which the server knows at once
my $lock = session($node, 'app');
for my $place (1, 8, 16)
{
	$lock->query('SELECT pg_advisory_lock(4713)');
	sixteen('t.some', '{"lock": 4713}', $place);
	others_done(15, "message $place of 16 waits for a lock: the others are handled meanwhile");
	is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 1, '... and it still waits');
	$lock->query('SELECT pg_advisory_unlock(4713)');
	ok(wait_drained($node, 'app'), '... it ends');
	cmp_ok(calls(), '<=', 2, '... called twice at most');
}
$lock->quit;

# three of them: one worker is left for all others; and for who asks
sixteen('t.some', sprintf('{"until": %d}', $round + 1), 3, 4, 12);
others_done(13, 'three of 16 take long, and there are four workers: the others are handled meanwhile');
is(as_role($node, 'app', 'app', q{CALL djactor.ask('t.some', 'fresh', '{"sender": 0, "seq": 1}', '20 s')}), 'null', '... who asks a fresh actor gets an answer');
is(as_role($node, 'app', 'app', q{CALL djactor.ask('t.some', 'k5', '{"sender": 0, "seq": 2}', '20 s')}), 'null', '... or one of the 16');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 3, '... while they still run');
let_end();
ok(wait_drained($node, 'app'), '... they end');
cmp_ok(calls(), '<=', 6, '... and were called twice at most each');
as_role($node, 'app', 'app', q{INSERT INTO sent VALUES (0, 1, 't.some', 'fresh'), (0, 2, 't.some', 'k5')});

is($node->safe_psql('app', q{SELECT count(*) FROM djactor.dead_letter}), 0, 'that was nobody\'s failure');
is($node->safe_psql('app', q{SELECT sum(failures) FROM djactor.actor}), 0, '... and used up no attempt');

#
# Who had nothing to do just before the long turn has his turn as soon as he can, not when that has ended
#
as_role($node, 'app', 'app', q{
	SELECT djactor.define_actor_type('t.again', 'public.step', max_attempts => 3, handler_timeout => '5 min', backoff => '1 s');
	SELECT djactor.define_actor_type('t.narrow', 'public.step', max_attempts => 1, concurrency => 1)});
my $seq = 10;

# beside_long($type, $key, $long): in one transaction, mail for an actor and then mail whose turn is long
sub beside_long
{
	my ($type, $key, $long) = @_;

	$round++;
	$seq += 2;
	as_role($node, 'app', 'app', sprintf(q{
		BEGIN;
		INSERT INTO sent VALUES (%1$d, %2$d, '%3$s', '%4$s'), (%1$d, %2$d + 1, '%5$s', 'long');
		SELECT djactor.send('%3$s', '%4$s', '{"sender": %1$d, "seq": %2$d}');
		SELECT djactor.send('%5$s', 'long', '{"sender": %1$d, "seq": %6$d, "until": %1$d}');
		COMMIT}, $round, $seq, $type, $key, $long, $seq + 1));
	ok(wait_until('it runs', sub { $node->safe_psql('app', 'SELECT is_called FROM calls') eq 't' }), "a long turn of $long");
}

sub long_ends
{
	is($node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_key = 'long'}), 1, '... while the long turn runs');
	let_end();
	ok(wait_drained($node, 'app'), '... which ends');
	calls();
}

as_role($node, 'app', 'app', q{
	BEGIN;
	INSERT INTO sent VALUES (0, 6, 't.some', 'idle'), (0, 7, 't.some', 'locked'), (0, 8, 't.narrow', 'idle');
	SELECT djactor.send(actor_type, actor_key, jsonb_build_object('sender', sender, 'seq', seq)) FROM sent WHERE sender = 0 AND seq BETWEEN 6 AND 8;
	COMMIT});
ok(wait_drained($node, 'app'), 'three actors exist');
as_role($node, 'app', 'app', q{SELECT djactor.pause('t.some', 'idle'); SELECT djactor.pause('t.narrow', 'idle')});
beside_long('t.some', 'idle', 't.some');
as_role($node, 'app', 'app', q{SELECT djactor.resume('t.some', 'idle')});
others_done(1, '... an actor that was paused before it began has its turn when it is resumed');
long_ends();

# its first message fails, the next one waits behind it
as_role($node, 'app', 'app', q{
	INSERT INTO sent VALUES (0, 5, 't.again', 'retry');
	SELECT djactor.send('t.again', 'retry', '{"sender": 0, "seq": 5, "fail": 1}')});
ok(wait_until('a failure', sub { $node->safe_psql('app', q{SELECT attempts FROM djactor.message}) eq '1' }), 'a turn fails');
beside_long('t.again', 'retry', 't.again');
others_done(1, '... an actor that waited for a retry has its turn when that is due');
long_ends();

my $other = session($node, 'app');
$other->query(q{BEGIN; SELECT FROM djactor.actor WHERE actor_key = 'locked' FOR UPDATE});
beside_long('t.some', 'locked', 't.some');
$other->query('ROLLBACK');
others_done(1, '... an actor whose row was locked has its turn when that is over');
long_ends();
$other->quit;

# types take turns: one that does not have two turns at once comes before the long turn in some of these rounds
for my $before (qw(t.some t.other t.one t.again))
{
	as_role($node, 'app', 'app', sprintf(q{
		INSERT INTO sent VALUES (0, %1$d, '%2$s', 'k');
		SELECT djactor.send('%2$s', 'k', '{"sender": 0, "seq": %1$d}')}, $seq, $before));
	ok(wait_until('a turn', sub { $node->safe_psql('app', "SELECT count(*) FROM ledger WHERE sender = 0 AND seq = $seq") eq '1' }), "a turn of $before");
	beside_long('t.narrow', 'idle', 't.some');
	as_role($node, 'app', 'app', qq{
		INSERT INTO sent VALUES ($round, 1, 't.narrow', 'busy');
		SELECT djactor.send('t.narrow', 'busy', '{"sender": $round, "seq": 1}')});
	others_done(1, '... another type, of which the worker may have looked at an actor, is handled, although it has one turn at a time');
	as_role($node, 'app', 'app', q{SELECT djactor.resume('t.narrow', 'idle')});
	others_done(2, '... and that actor is, when it is resumed');
	long_ends();
	as_role($node, 'app', 'app', q{SELECT djactor.pause('t.narrow', 'idle')});
}

# what has been done without a turn is committed before the long one
$round++;
as_role($node, 'app', 'app', qq{
	BEGIN;
	INSERT INTO djactor.message (actor_type, actor_key, payload, expires_at) VALUES ('t.some', 'late', '{}', now() - interval '1 s');
	SELECT djactor.send('t.some', 'long', '{"sender": 0, "seq": 9, "until": $round}');
	INSERT INTO sent VALUES (0, 9, 't.some', 'long');
	COMMIT});
ok(wait_until('it runs', sub { $node->safe_psql('app', 'SELECT is_called FROM calls') eq 't' }), 'a long turn');
ok(wait_until('the dead letter', sub { $node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter') eq '1' }, 20), '... mail that has expired before it is a dead letter');
long_ends();

check_ledger($node, 'app');

#
# One worker, which is in the long turn: what it has handled before is committed
#
$node->append_conf('postgresql.conf', "djactor.max_workers = 1\n");
$node->restart;
$round++;
as_role($node, 'app', 'app', qq{
	BEGIN;
	SELECT djactor.send('t.some', 'before', '{"item": 1, "sender": 0, "seq": 3}');
	SELECT djactor.send('t.some', 'long', '{"until": $round, "sender": 0, "seq": 4}');
	COMMIT});
my $web = session($node, 'app', 'app');
ok(wait_until('it runs', sub { $node->safe_psql('app', 'SELECT is_called FROM calls') eq 't' }), 'a single worker is in a long turn');
$web->start('UPDATE item SET n = n + 10');
ok(wait_until('the row', sub { $web->finished }, 20), '... who wants a row that an earlier turn has written gets it');
is($node->safe_psql('app', 'SELECT n FROM item'), 11, '... as that has left it');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 1, '... while the long turn runs');
let_end();
ok(wait_drained($node, 'app'), '... which ends');
cmp_ok(calls(), '<=', 2, '... called twice at most');
$web->quit;

is(log_count($node, qr/terminated by signal|PANIC|TRAP:|OVERLAP/), 0, 'nothing crashed, no two turns of one actor at once');
$node->stop;
done_testing();
