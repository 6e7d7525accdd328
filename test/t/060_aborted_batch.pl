# Mail is not forgotten when a batch comes to nothing (contract 6).
#
# A turn cancels a message of another actor.  The batch goes on and finds that actor's mailbox empty, which is the
# batch's own doing; then a turn fails, and the batch starts over.  This time nothing is cancelled: the message has
# to be handled, though nobody announces it once more.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('aborted', 'djactor.max_workers' => 1, 'djactor.batch_time' => '60s', 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE done (actor_key text);
	CREATE SEQUENCE cancels;
	CREATE SEQUENCE failures;
	-- no sequence is rolled back: each of these happens the first time only
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'cancel' AND nextval('cancels') = 1 THEN
			PERFORM djactor.cancel((message->>'cancel')::bigint);
		END IF;
		IF message ? 'fail' AND nextval('failures') = 1 THEN
			RAISE EXCEPTION 'the batch starts over';
		END IF;
		INSERT INTO done VALUES ((djactor.self()).actor_key);
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('t.step', 'public.step')});

sub app { return as_role($node, 'app', 'app', join("\n", @_)) }

# In this order, in one batch: the sweep after resume() goes by place in the mailbox.  A batch ends after a turn that
# lasts, as any may on a busy machine: then the cancel is committed, and all is tried again.
my $tried = 0;
my $cancels;
do
{
	app(q{SELECT djactor.pause('t.step')});
	app('TRUNCATE done; ALTER SEQUENCE cancels RESTART; ALTER SEQUENCE failures RESTART');
	my $id = app(q{SELECT djactor.send('t.step', 'cancelled')});
	app(qq{SELECT djactor.send('t.step', 'canceller', '{"cancel": $id}', priority => 1);},
		q{SELECT djactor.send('t.step', 'last', '{"fail": true}');});
	app(q{SELECT djactor.resume('t.step')});
	wait_drained($node, 'app') or die 'mail is left';
	$cancels = app(q{SELECT last_value FROM cancels});
} while ($cancels == 1 && ++$tried < 20);
is($cancels . ' ' . app(q{SELECT last_value FROM failures}), '2 2', 'a batch starts over, in which a message was cancelled, and cancels nothing then');
is(app(q{SELECT string_agg(actor_key, ' ' ORDER BY actor_key) FROM done}), 'cancelled canceller last',
	'... the message is handled');
is(app(q{SELECT count(*) FROM djactor.dead_letter}), '0', '... and no attempt of it was used up');

$node->stop;
done_testing();
