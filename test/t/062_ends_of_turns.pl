# What is left to the end of a turn, or to a later turn of the same message, happens once: the end of an actor (contract
# 23), the answer to an ask with a key (18 and 19), a fresh start by resume() (12 and 13), and what djactor.stat counts.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

# one worker, whose batch goes on after a turn that took long
my $node = new_server('ends', 'djactor.max_workers' => 1, 'djactor.batch_time' => '60s', 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE done (serial bigserial, actor_key text, kind text, meta jsonb, n text);
	CREATE SEQUENCE attempt;
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'lock' THEN
			PERFORM pg_advisory_xact_lock_shared(4711);
		END IF;
		IF message ? 'do' THEN
			EXECUTE message->>'do';
		END IF;
		INSERT INTO done (actor_key, kind, meta, n) VALUES ((djactor.self()).actor_key, (djactor.message()).kind, (djactor.message()).meta, message->>'n');
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('t.step', 'public.step', max_attempts => 2, backoff => '1 ms', backoff_max => '1 ms'),
		djactor.define_actor_type('t.suspend', 'public.step', max_attempts => 3, backoff => '1 ms', backoff_max => '1 ms', on_exhausted => 'suspend'),
		djactor.define_actor_type('t.full', 'public.step', mailbox_limit => 1, on_full => 'dead_letter')});

my $lock = session($node, 'app');

sub app { return as_role($node, 'app', 'app', join("\n", @_)) }
sub does
{
	my ($key, $do, $more) = @_;

	return qq{SELECT djactor.send('t.step', '$key', jsonb_build_object('n', 'does', 'do', \$payload\$$do\$payload\$)} . ($more // '') . ');';
}
sub idle { ok(app(q{SELECT djactor.wait_idle('60 s')}) eq 't', $_[0]) }
sub waits_for_lock
{
	return wait_until('a turn that waits', sub {
		$node->safe_psql('app', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}) eq '1' });
}
sub dead { return app(qq{SELECT coalesce(string_agg(reason || ': ' || coalesce(error, ''), ', ' ORDER BY id), '') FROM djactor.dead_letter WHERE actor_key = '$_[0]'}) }

# stopped twice in one turn, by the actor itself and by another one
for my $case (['stop(), stop()', 'own', 'SELECT djactor.stop(), djactor.stop()', ''],
	['stop(), stop_actor()', 'both', q{SELECT djactor.stop(), djactor.stop_actor('t.step', 'both')}, ''],
	['stop(), stop(discard)', 'discarded', 'SELECT djactor.stop(), djactor.stop(true)', 'stopped: the actor was stopped'])
{
	my ($name, $key, $do, $dead) = @$case;

	app(does($key, 'SELECT 1'));
	idle('an actor');
	app(does("watches $key", "SELECT djactor.watch('t.step', '$key')"));
	idle('... that is watched');
	app('BEGIN;', does($key, $do), qq{SELECT djactor.send('t.step', '$key', '{"n": "waits"}');}, 'COMMIT');
	idle("... $name");
	is(dead($key), $dead, '... is no failure');
	is(app(qq{SELECT count(*) FROM done WHERE actor_key = 'watches $key' AND kind = 'down'}), '1', '... its watcher is told once');
}
app(does('other', 'SELECT 1'));
idle('an actor');
$lock->query('SELECT pg_advisory_lock(4711)');
app(q{SELECT djactor.send('t.step', 'stops', '{"lock": 1}')});
ok(waits_for_lock(), '... and a batch');
app('BEGIN;', does('other', 'SELECT 1'), does('stops', q{SELECT djactor.stop_actor('t.step', 'other'), djactor.stop_actor('t.step', 'other')}), 'COMMIT');
app(does('stops', q{SELECT djactor.stop_actor('t.step', 'other'), djactor.stop_actor('t.step', 'other')}));
$lock->query('SELECT pg_advisory_unlock(4711)');
idle('... in which another one stops it twice');
is(dead('stops'), '', '... is no failure');
is(app(q{SELECT count(*) FROM djactor.actor WHERE actor_key = 'other'}), '0', '... and it is gone');

# one that an earlier turn of the batch has found absent, or has ended, is none
app(q{CREATE TABLE stopped (was bool)});
$lock->query('SELECT pg_advisory_lock(4711)');
app(q{SELECT djactor.send('t.step', 'first', '{"lock": 1}')});
ok(waits_for_lock(), 'a batch');
app('BEGIN;', does('none', 'SELECT djactor.stop()'), does('stops', q{INSERT INTO stopped SELECT djactor.stop_actor('t.step', 'none')}), 'COMMIT');
$lock->query('SELECT pg_advisory_unlock(4711)');
idle('... in which an actor ends with its first turn');
is(app(q{SELECT was FROM stopped}), 'f', '... stop_actor() finds none');

# a reply stays from when it was given, however long the turn took
$lock->query('SELECT pg_advisory_lock(4711)');
my $slow = app(q{SELECT djactor.send('t.step', 'slow', '{"lock": 1}', wants_reply => true)});
ok(waits_for_lock(), 'an ask');
sleep 3;
$lock->query('SELECT pg_advisory_unlock(4711)');
idle('... that takes long');
is(app(qq{SELECT expires_at - created_at > '24:00:02' FROM djactor.reply WHERE message_id = $slow}), 't', '... its reply is kept for as long as any from then on');
app(q{DELETE FROM djactor.reply});

# the first answer counts, also for duplicates that come later
app(q{CREATE TABLE stashed (n int)});
app(does('keyed', q{DO $$ BEGIN
	IF NOT EXISTS (SELECT FROM stashed) THEN
		INSERT INTO stashed VALUES (1);
		PERFORM djactor.reply('"first"'), djactor.stash();
	END IF; END $$}, q{, wants_reply => true, idempotency_key => 'k'}));
idle('an ask with a key is answered, and stashed');
app(does('keyed', 'SELECT djactor.unstash_all()'));
idle('... its next turn answers nothing');
app(q{SELECT djactor.send('t.step', 'keyed', '{}', wants_reply => true, idempotency_key => 'k')});
idle('... a duplicate');
is(app(q{SELECT string_agg(payload::text, ' ' ORDER BY message_id) FROM djactor.reply}), '"first" "first"', '... gets the same answer');

# a key belongs to the message that was handled
app(does('redriven', 'DO $$ BEGIN IF (djactor.message()).redrives = 0 THEN PERFORM djactor.reject(); END IF; END $$', q{, idempotency_key => 'k'}));
idle('a message with a key is rejected');
my $ask = app(does('redriven', 'SELECT djactor.defer_reply()', q{, wants_reply => true, idempotency_key => 'k'}));
idle('... the next one defers its answer');
app(q{SELECT djactor.redrive(id) FROM djactor.dead_letter WHERE actor_key = 'redriven'});
idle('... the first one is brought back, and handled');
app("SELECT djactor.cancel($ask)");
app(q{SELECT djactor.send('t.step', 'redriven', '{"n": "third"}', idempotency_key => 'k')});
idle('... the second one is cancelled');
is(app(q{SELECT string_agg(n, ' ' ORDER BY serial) FROM done WHERE actor_key = 'redriven'}), 'does does', '... a third one is a duplicate of the first');

# resume() in a turn whose message has failed before
app(does('resumes', q{DO $$ BEGIN
	IF nextval('attempt') = 1 THEN
		RAISE 'the first attempt';
	END IF;
	PERFORM djactor.resume('t.step', 'resumes'); END $$}));
idle('an actor that resumes itself, at the second attempt');
is(dead('resumes'), '', '... is no failure');

# resume() finds the message that has failed behind one of higher priority
app(q{SELECT djactor.send('t.suspend', 'urgent', '{"do": "SELECT 1/0"}')});
ok(wait_until('suspended', sub { app(q{SELECT count(*) FROM djactor.actor WHERE actor_key = 'urgent' AND status = 'suspended'}) eq '1' }), 'suspended');
app(q{SELECT djactor.send('t.suspend', 'urgent', '{}', priority => 5)}, q{; SELECT djactor.resume('t.suspend', 'urgent')});
ok(wait_until('suspended again', sub { app(q{SELECT count(*) FROM djactor.actor WHERE actor_key = 'urgent' AND status = 'suspended' AND turns = 1}) eq '1' }),
	'... and resumed with urgent mail');
is(app(q{SELECT failures, (SELECT attempts FROM djactor.message WHERE actor_key = 'urgent') FROM djactor.actor WHERE actor_key = 'urgent'}), '6|3',
	'... has all its attempts anew');

# a dead letter that a failed turn has brought about does not count
app(q{SELECT djactor.pause('t.full'), djactor.send('t.full', 'full')});
$lock->query('SELECT pg_advisory_lock(4711)');
app(q{SELECT djactor.send('t.step', 'first', '{"lock": 1}')});
ok(waits_for_lock(), 'a batch');
app('BEGIN;', does('fails', q{SELECT djactor.send('t.full', 'full'); SELECT 1/0}), does('goes on', q{SELECT djactor.send('t.full', 'full')}), 'COMMIT');
$lock->query('SELECT pg_advisory_unlock(4711)');
idle('... in which a turn fails that has sent to a full mailbox, and another one sends, too');
is(app(q{SELECT dead, (SELECT count(*) FROM djactor.dead_letter d WHERE d.actor_type = s.actor_type) FROM djactor.stat s WHERE actor_type = 't.full'}),
	'1|1', '... there is one dead letter');

# attempts that fail in the batch that makes the actor
app(q{SELECT djactor.define_actor_type('t.skip', 'public.step', backoff => '1 h', backoff_max => '1 h', retry_order => 'skip')});
app('BEGIN;', map({ qq{SELECT djactor.send('t.skip', 'fails', '$_');} } '{}', '{"do": "SELECT 1/0"}', '{"do": "SELECT 1/0"}'), 'COMMIT');
ok(wait_until('two failures', sub { app(q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.skip' AND attempts = 1}) eq '2' }), 'a new actor fails twice');
is(app(q{SELECT failures FROM djactor.actor WHERE actor_type = 't.skip'}), '2', '... which is counted');

$lock->quit;
$node->stop;
done_testing();
