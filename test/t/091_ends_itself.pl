# A handler that ends its own process by pg_terminate_backend() is charged with a crash, wherever in the turn it does so:
# the message runs alone next, and is given up in the end. Its batch-mates are handled, once.
# (005_terminate and 016_crash_marker have workers that somebody else ends: no charge.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('ends_itself', 'djactor.poll_interval' => '1h', 'djactor.max_workers' => 2, fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION last(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
		$$ SELECT state || jsonb_build_object('over', pg_terminate_backend(pg_backend_pid())) $$;
	CREATE FUNCTION ends(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'first' THEN
			PERFORM pg_terminate_backend(pg_backend_pid());
		END IF;
		RETURN public.work(state, message);
	END $$;
	SELECT djactor.define_actor_type('t.last', 'public.last', backoff => '10 ms');
	SELECT djactor.define_actor_type('t.ends', 'public.ends', backoff => '10 ms')});

# sends($name, $sql): with messages before and after that one
sub sends
{
	my ($sender, $name, $send) = @_;
	my $offset = -s $node->logfile;

	as_role($node, 'app', 'app', qq{
		BEGIN;
		SELECT post($sender, 1, 5, 't.ends', 5);
		$send;
		SELECT post($sender, 6, 5, 't.ends', 5);
		SELECT post($sender, 11, 5, 't.work', 5);
		COMMIT});
	ok(wait_drained($node, 'app', 15), "$name: all mail comes to its end");
	is($node->safe_psql('app', q{SELECT reason, crashes, error FROM djactor.dead_letter}),
		'crashed|2|the process that ran its handler died 2 times', '... that message is given up as crashed');
	is(log_count($node, qr/terminating background worker "djactor worker"/, $offset), 2, '... two processes have ended for it');
	$node->safe_psql('app', 'DELETE FROM djactor.dead_letter');
	check_ledger($node, 'app');
}

sends(1, 'in the middle of a turn', q{SELECT djactor.send('t.ends', 'x', '{"first": true}')});
sends(2, 'as the last thing in a turn', q{SELECT djactor.send('t.last', 'x')});

is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$node->stop;
done_testing();
