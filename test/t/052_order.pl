# What was sent before is handled before, whatever happens while a batch is under way (contract 9).
#
# Mail that an actor does not take, since it is paused, suspended or newer than its type, is passed over: nobody looks at it
# again before the actor is resumed.  Each case has such mail, and then has a worker read a newer message of the same actor
# into a batch, in which an earlier turn of another actor waits for a lock.  Meanwhile, or in that turn, the actor is let go.
# The older mail has to come first.  The same holds of mail that was held, and of what a turn sends itself.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

# one worker, whose batch goes on after a turn that took long
my $node = new_server('order', 'djactor.max_workers' => 1, 'djactor.batch_time' => '60s', 'djactor.poll_interval' => '1h',
	max_prepared_transactions => 2, fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE done (serial bigserial, actor_key text, n text);
	CREATE TABLE broken (actor_key text);
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM broken WHERE actor_key = (djactor.self()).actor_key) THEN
			RAISE EXCEPTION 'broken';
		END IF;
		IF message ? 'lock' THEN
			PERFORM pg_advisory_xact_lock_shared(4711);
		END IF;
		IF message ? 'do' THEN
			EXECUTE message->>'do';
		END IF;
		INSERT INTO done (actor_key, n) VALUES ((djactor.self()).actor_key, message->>'n');
		RETURN state;
	END $$;
	CREATE FUNCTION define(version int) RETURNS void LANGUAGE sql AS $$
		SELECT djactor.define_actor_type('t.step', 'public.step', state_version => version, max_attempts => 1, on_exhausted => 'suspend') $$;
	SELECT define(1)});

my $lock = session($node, 'app');
my $serial = 0;

# a message as SQL
sub mail
{
	my ($key, $n, $more) = @_;

	return qq{SELECT djactor.send('t.step', '$key', '{"n": "$n"}'::jsonb || \$payload\$} . ($more // '{}') . q{$payload$);};
}
sub app { return as_role($node, 'app', 'app', join("\n", @_)) }
sub waits_for_lock
{
	return wait_until('a turn that waits', sub {
		$node->safe_psql('app', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}) eq '1' });
}

# case(name, halt => makes the actor wait, let_go => the opposite, own => is it the turn that lets it go,
#      late => is the newer message sent only when that turn waits)
sub case
{
	my ($name, %case) = @_;
	my $key = 'k' . ++$serial;
	my $let_go = $case{let_go} =~ s/KEY/$key/gr;
	my $turn = $case{own} ? qq{{"lock": 1, "do": "$let_go"}} : '{"lock": 1}';

	app(mail($key, 0));
	ok(wait_drained($node, 'app'), "$name: an actor");
	app($case{halt} =~ s/KEY/$key/gr);
	# the messages of another actor tell when the worker has passed over those of the first
	for my $n (1 .. 3)
	{
		app(mail($key, $n), mail("probe$serial", $n));
		ok(wait_until('the probe', sub { app(qq{SELECT count(*) FROM done WHERE actor_key = 'probe$serial'}) eq $n }),
			'... whose mail waits');
	}
	app(qq{DELETE FROM broken});
	ok(wait_until('a worker at rest', sub { app(q{SELECT count(*) FROM djactor.worker WHERE state = 'idle'}) eq '1' }), '... and was passed over');

	$lock->query('SELECT pg_advisory_lock(4711)');
	app('BEGIN;', mail("other$serial", 0, $turn), $case{late} ? () : mail($key, 4), 'COMMIT;');
	ok(waits_for_lock(), '... a batch with newer mail is under way');
	app(mail($key, 4)) if $case{late};
	app($let_go) if !$case{own};
	$lock->query('SELECT pg_advisory_unlock(4711)');
	ok(wait_drained($node, 'app'), '... the actor is let go');
	is(app(qq{SELECT string_agg(n, ' ' ORDER BY serial) FROM done WHERE actor_key = '$key'}), '0 1 2 3 4', '... and what is older comes first');
}

my %paused = (halt => q{SELECT djactor.pause('t.step', 'KEY')}, let_go => q{SELECT djactor.resume('t.step', 'KEY')});
my %suspended = (%paused, halt => q{INSERT INTO broken VALUES ('KEY')});
my %stopped = (%paused, let_go => q{SELECT djactor.stop_actor('t.step', 'KEY')});
my %prepared = (%paused, let_go => q{BEGIN; SELECT djactor.resume('t.step', 'KEY'); PREPARE TRANSACTION 'let go'; COMMIT PREPARED 'let go'});
my %newer = (halt => q{SELECT define(1)}, let_go => q{SELECT define(2)});

case('paused, and resumed by an operator', %paused);
case('suspended, and resumed by an operator', %suspended);
case('paused, and stopped by an operator', %stopped);
case('paused, and resumed by a prepared transaction', %prepared);
case('paused, and resumed by a turn of the batch', %paused, own => 1);
case('paused, and resumed by a turn before its mail is read', %paused, own => 1, late => 1);
case('suspended, and resumed by a turn before its mail is read', %suspended, own => 1, late => 1);
case('paused, and stopped by a turn before its mail is read', %stopped, own => 1, late => 1);
app('SELECT define(2)');
case('newer than its type, which an operator defines anew', %newer);
case('newer than its type, which a turn of the batch defines anew', %newer, own => 1);
case('newer than its type, which a turn defines anew before its mail is read', %newer, own => 1, late => 1);

# mail that has arrived by replication, and is let go while the type's worker is awake
$node->safe_psql('app', q{
	SET session_replication_role = replica;
	INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 't.step', 'arrived', jsonb_build_object('n', n) FROM generate_series(1, 3) n});
app(mail('arrived', 0));
ok(wait_until('a newer one', sub { app(q{SELECT count(*) FROM done WHERE actor_key = 'arrived'}) eq '1' }), 'what has arrived by replication is held');
app('SELECT djactor.resume();', mail('arrived', 4));
ok(wait_until('all', sub { app(q{SELECT count(*) FROM done WHERE actor_key = 'arrived'}) eq '5' }), '... until resume()');
is(app(q{SELECT string_agg(n, ' ' ORDER BY serial) FROM done WHERE actor_key = 'arrived'}), '0 1 2 3 4', '... and comes before what is sent then');

# a turn sends to an actor, somebody else does, and the turn does once more: the batch that goes on finds all three
as_role($node, 'app', 'app', qq{
	CREATE FUNCTION sends(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$
	BEGIN
		PERFORM djactor.send('t.step', 'sent', '{"n": "1"}');
		PERFORM pg_advisory_xact_lock_shared(4711);
		PERFORM djactor.send('t.step', 'sent', '{"n": "3"}');
		RETURN state;
	END \$\$;
	SELECT djactor.define_actor_type('t.sends', 'public.sends')});
$lock->query('SELECT pg_advisory_lock(4711)');
app(q{SELECT djactor.send('t.sends', 'k')});
ok(waits_for_lock(), 'a turn sends twice to one actor');
app(mail('sent', 2));
$lock->query('SELECT pg_advisory_unlock(4711)');
ok(wait_drained($node, 'app'), '... and somebody else in between');
like(app(q{SELECT string_agg(n, ' ' ORDER BY serial) FROM done WHERE actor_key = 'sent'}), qr/1.*3/, '... the first of the two comes first');

$lock->quit;
$node->stop;
done_testing();
