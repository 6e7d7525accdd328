# Turns that are broken off by cancel(id, running => true) (contract 3, 6, 12 and 18).
#
# A turn that has locked its rows, one that catches the cancel, one in PL/Python that loops: the message is gone, nothing of the turn is left,
# nobody is charged. However close to the end of the turn the cancel comes, there is one outcome: either the turn has counted and its asker has the
# reply, or it has not and the asker has an error. Hosted turns: a statement of the turn is cancelled, its end refused, other hosts' sessions are
# told by NOTIFY, and what was not committed charges nothing.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('cancel', 'djactor.max_workers' => 3, 'djactor.poll_interval' => '1h', fsync => 'off');
my $python = has_extension('plpython3u');

new_app($node, 'app');
$node->safe_psql('app', q{CREATE EXTENSION plpython3u; UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'plpython3u'}) if $python;
as_role($node, 'app', 'app', q{
	CREATE TABLE caught (message bigint);
	CREATE SEQUENCE catches;
	CREATE FUNCTION lasts(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'catch' THEN
			BEGIN
				PERFORM pg_sleep(300);
			EXCEPTION WHEN query_canceled THEN
				PERFORM nextval('catches');
			END;
			INSERT INTO caught VALUES ((djactor.message()).id);
		ELSIF message ? 'sleep' THEN
			PERFORM pg_sleep((message->>'sleep')::float8);
		END IF;
		RETURN (jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1), '"done"'::jsonb);
	END $$;
	SELECT djactor.define_actor_type('t.lasts', 'public.lasts', max_attempts => 1, breaker_failures => 1);
	SELECT djactor.define_actor_type('t.one', 'public.lasts', max_attempts => 1, breaker_failures => 1, batch_size => 1);
	SELECT djactor.define_actor_type('h', NULL, hosted => true, max_attempts => 1)});
as_role($node, 'app', 'app', q{
	CREATE FUNCTION loops(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpython3u AS 'while True: pass';
	SELECT djactor.define_actor_type('t.python', 'public.loops', max_attempts => 1, breaker_failures => 1)}) if $python;
my $sql = session($node, 'app', 'app');

# ask($type, $payload): its id
sub ask { return $sql->query("SELECT djactor.send('$_[0]', 'k', '$_[1]', wants_reply => true)") }

# runs($id): waits until a worker is in its turn
sub runs
{
	my ($id) = @_;

	return wait_until("message $id runs", sub { $sql->query("SELECT count(*) FROM djactor.worker WHERE message_id = $id") });
}

sub reason { return $sql->query("SELECT error->>'reason' FROM djactor.wait_replies('{$_[0]}', '1 min')") }

#
# Turns of workers
#
for my $case ([ 'a turn that has locked its rows', 't.one', '{"sleep": 300}' ], [ 'a turn that catches the cancel', 't.lasts', '{"catch": 1}' ],
	[ '... and has locked its rows', 't.one', '{"catch": 1}' ], $python ? [ 'a loop in PL/Python', 't.python', '{}' ] : ())
{
	my ($what, $type, $payload) = @$case;
	my $id = ask($type, $payload);

	runs($id);
	my $start = time;
	is($sql->query("SELECT djactor.cancel($id, running => true)"), 'running', "$what is broken off");
	is(reason($id), 'cancelled', '... its asker is told');
	ok(wait_until('the turn has ended', sub { !$sql->query("SELECT count(*) FROM djactor.worker WHERE message_id = $id") }, 30), '... it ends');
	cmp_ok(time - $start, '<', 30, '... soon');
	my $next = ask($type, '{}') if $type ne 't.python';
	is($sql->query("SELECT djactor.wait_reply($next, '1 min')"), '"done"', '... and the next message is handled') if $next;
}
is($sql->query('SELECT count(*) FROM caught'), 0, 'nothing is left of turns that caught the cancel');
cmp_ok($sql->query('SELECT last_value FROM catches'), '>', 0, 'they did catch it');
is($sql->query(q{SELECT string_agg(actor_type || ' ' || (state->>'n') || ' ' || failures, ', ' ORDER BY actor_type) FROM djactor.actor}),
	't.lasts 1 0, t.one 2 0', 'the states are those of the other messages, and no failure is counted');
is($sql->query('SELECT count(*) FROM djactor.dead_letter'), 0, 'there are no dead letters');
is($sql->query('SELECT count(*) FROM djactor.actor_type WHERE paused'), 0, 'no breaker has tripped');

#
# Close to the end of the turn: one outcome
#
my (%said, %was);
for my $type (qw(t.lasts t.one))
{
	my $before = $sql->query("SELECT (state->>'n')::int FROM djactor.actor WHERE actor_type = '$type'");
	my $handled = 0;

	for my $i (1 .. 60)
	{
		my $id = ask($type, '{"sleep": 0.02}');

		sleep rand 0.04;
		my $said = $sql->query("SELECT djactor.cancel($id, true)");
		my $answer = $sql->query("SELECT coalesce(reply::text, error->>'reason') FROM djactor.wait_replies('{$id}', '1 min')");

		$said{$said}++;
		$was{"$said: $answer"}++;
		$handled++ if $answer eq '"done"';
	}
	$sql->query("SELECT djactor.wait_idle('1 min', '$type')");
	is($sql->query("SELECT (state->>'n')::int FROM djactor.actor WHERE actor_type = '$type'"), $before + $handled, "$type: who has a reply has had a turn, and nobody else");
}
is(join(', ', sort keys %was), join(', ', grep { $was{$_} } 'gone: "done"', 'running: cancelled', 'waiting: cancelled'), 'what was said is what was done');
ok($said{gone} && $said{running}, 'both came first at times');
is($sql->query('SELECT sum(failures) FROM djactor.actor'), 0, 'no failure is counted');

#
# Hosted turns
#
my ($host, $turn) = map { session($node, 'app', 'app') } 1 .. 2;

$host->query(q{SELECT djactor.host_open('{h}', lease => '10 min'); LISTEN djactor_host});

sub take
{
	my $row = '';

	wait_until('mail', sub { ($row = $host->query('SELECT token, id FROM djactor.take(10, 10) LIMIT 1')) ne '' });
	return $row =~ /^(\d+)\|(\d+)/;	# a notification may follow
}

my $id = ask('h', '{}');
my $next = ask('h', '{}');
my ($token, $taken) = take();
is($taken, $id, 'a host has taken a message');
$turn->query("BEGIN; SELECT djactor.begin_turn($token, $id)");
$turn->start('SELECT pg_sleep(60)');
is($sql->query("SELECT djactor.cancel($id, running => true)"), 'running', 'it is cancelled while a statement of its turn is executed');
$turn->finish;
like($turn->{err}, qr/canceling statement due to user request/, '... which is cancelled');
$turn->query('ROLLBACK');
is($turn->query("SELECT djactor.fail($token, $id, '57014', 'x')"), 'gone', '... and nobody is charged');
is(reason($id), 'cancelled', '... its asker is told');
$host->start('SELECT 1');
like($host->finish, qr/Asynchronous notification "djactor_host" with payload "$id"/, '... and so are hosts');
($token, $taken) = take();
is($taken, $next, 'the next message is handed out');

# between two statements
$turn->query("BEGIN; SELECT djactor.begin_turn($token, $next)");
is($sql->query("SELECT djactor.cancel($next, running => true)"), 'running', 'a turn is cancelled between its statements');
sleep 0.1;
$turn->start('SELECT pg_sleep(60)');
$turn->finish;
like($turn->{err}, qr/canceling statement due to user request/, '... the next one is cancelled');
$turn->query('ROLLBACK');
is($turn->query("SELECT djactor.release('{$token}')"), 1, '... and the claim is given back');
is(reason($next), 'cancelled', '... its asker is told');

# ... and right before its end
$id = ask('h', '{}');
($token) = take();
$sql->start("BEGIN; SELECT djactor.begin_turn($token, $id); SELECT djactor.cancel($id, true)");
$sql->finish;
like($sql->{err}, qr/a message that is being handled cannot be cancelled|inside a turn/, 'a turn cannot cancel itself');
$sql->query('ROLLBACK');
$turn->start("BEGIN; SELECT djactor.begin_turn($token, $id); SELECT pg_sleep(0.3)");
sleep 0.1;
$sql->query("SELECT djactor.cancel($id, true)");
$turn->finish;
$turn->start('\set VERBOSITY verbose
CALL djactor.end_turn()');
$turn->finish;
like($turn->{err}, qr/25P02|40001: cannot end the turn: message $id was cancelled/, 'the end of a turn that was cancelled is refused');
$turn->query("ROLLBACK; SELECT djactor.release('{$token}')");

# outside of transactions, as async hosts run turns
$id = ask('h', '{}');
($token) = take();
is($sql->query("SELECT djactor.cancel($id, true)"), 'running', 'a turn is cancelled that no transaction runs');
is($turn->query("SELECT djactor.complete('{$token}', '{$id}', '{1}')"), '{gone}', '... its end is refused');

# not committed
$id = ask('h', '{}');
($token) = take();
is($sql->query("BEGIN; SELECT djactor.cancel($id, true)"), 'running', 'a turn is cancelled in a transaction');
is($turn->query("SELECT djactor.fail($token, $id, '57014', 'x')"), 'locked', '... meanwhile its failure charges nothing');
$sql->query('ROLLBACK');
($token, $taken) = take();
is($taken, $id, '... and rolled back it is handed out again');
is($sql->query("SELECT attempts FROM djactor.message WHERE id = $id"), 0, '... as before');
is($sql->query("BEGIN; SELECT djactor.cancel($id, true); ROLLBACK"), 'running', 'once more, before the failure');
is($turn->query("SELECT djactor.fail($token, $id, '57014', 'x')"), 'locked', '... which charges nothing either');
($token, $taken) = take();
is($turn->query("SELECT djactor.complete('{$token}', '{$taken}', '{1}')"), '{done}', '... and is handled in the end');
is($sql->query('SELECT count(*) FROM djactor.dead_letter'), 0, 'there are no dead letters');

# what a host has not taken
$sql->query("SELECT djactor.pause('h')");
$id = ask('h', '{}');
is($sql->query("SELECT djactor.cancel($id, true)"), 'waiting', 'mail that no host has waits');
is(log_count($node, 'PANIC|TRAP|server process .* was terminated'), 0, 'nothing has crashed');

$_->quit for $sql, $host, $turn;
done_testing();
