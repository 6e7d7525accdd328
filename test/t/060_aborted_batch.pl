# Mail is not forgotten when a batch comes to nothing (contract 6).
#
# A turn cancels a message of another actor.  The batch goes on and finds that actor's mailbox empty, which is the
# batch's own doing; then somebody updates a state by hand, and the batch starts over.  This time nothing is cancelled:
# the message has to be handled, though nobody announces it once more.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

# one worker, whose batch goes on after a turn that took long
my $node = new_server('aborted', 'djactor.max_workers' => 1, 'djactor.batch_time' => '60s', 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE done (actor_key text);
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'lock' THEN
			PERFORM pg_advisory_xact_lock_shared((message->>'lock')::int);
		END IF;
		IF message ? 'cancel' AND NOT state ? 'keep' THEN
			PERFORM djactor.cancel((message->>'cancel')::bigint);
		END IF;
		INSERT INTO done VALUES ((djactor.self()).actor_key);
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('t.step', 'public.step')});

sub app { return as_role($node, 'app', 'app', join("\n", @_)) }
sub waits_for_lock
{
	my ($lock) = @_;

	return wait_until("a turn that waits for lock $lock", sub {
		$node->safe_psql('app', qq{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $lock}) eq '1' });
}

my $lock = session($node, 'app');

app(map { qq{SELECT djactor.send('t.step', '$_');} } qw(canceller cancelled));
ok(wait_drained($node, 'app'), 'two actors');
app(q{SELECT djactor.pause('t.step', 'cancelled')});
my $id = app(q{SELECT djactor.send('t.step', 'cancelled')});

$lock->query('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
app(qq{SELECT djactor.send('t.step', 'canceller', '{"lock": 1, "cancel": $id}')});
ok(waits_for_lock(1), 'a turn that is going to cancel a message');
app(q{SELECT djactor.resume('t.step', 'cancelled')});
app(q{SELECT djactor.send('t.step', 'last', '{"lock": 2}')});
$lock->query('SELECT pg_advisory_unlock(1)');
ok(waits_for_lock(2), '... has done so, and its batch goes on');
app(q{UPDATE djactor.actor SET state = '{"keep": true}' WHERE actor_key = 'canceller'});
$lock->query('SELECT pg_advisory_unlock(2)');
ok(wait_drained($node, 'app'), '... but has to start over, and cancels nothing then');
is(app(q{SELECT string_agg(actor_key, ' ' ORDER BY actor_key) FROM done}), 'cancelled cancelled canceller canceller last',
	'... the message is handled');

$lock->quit;
$node->stop;
done_testing();
