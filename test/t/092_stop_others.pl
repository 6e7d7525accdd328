# stop(true) gives up what is delayed of its own actor, and looks at nobody else's: of thousands of delayed messages and timers
# of the same type it reads none.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('stop_others', 'djactor.poll_interval' => '1h', 'djactor.max_workers' => 1, fsync => 'off', autovacuum => 'off');

new_database($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION public.stops(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF message ? 'timer' THEN
			PERFORM djactor.set_timer('t', '1 day');
		END IF;
		IF message ? 'stop' THEN
			PERFORM djactor.stop(true);
		END IF;
		RETURN state;
	END $$;
	SELECT djactor.define_actor_type('t.stops', 'public.stops');
	INSERT INTO djactor.message (actor_type, actor_key, deliver_at) SELECT 't.stops', 'k' || i, now() + '1 day' FROM generate_series(1, 5000) i;
	INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 't.stops', 't' || i, '{"timer": true}' FROM generate_series(1, 5000) i;
	INSERT INTO djactor.message (actor_type, actor_key, payload, deliver_at) SELECT 't.stops', 'k7', '"mine"', now() + '2 days' FROM generate_series(1, 2)});

sub waits_now { return $node->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE deliver_at IS NULL}) }
ok(wait_until('turns', sub { waits_now() eq '0' }), 'five thousand timers');

# What the worker has read, once it rests and has told the server.
sub read_by_now
{
	sleep 2;
	return $node->safe_psql('app', q{SELECT sum(idx_tup_fetch) FROM pg_stat_all_indexes WHERE relname = 'message'});
}
my $before = read_by_now();

as_role($node, 'app', 'app', q{SELECT djactor.send('t.stops', 'k7', '{"stop": true}')});
ok(wait_until('a turn', sub { waits_now() eq '0' }), 'one of them stops');
is($node->safe_psql('app', q{SELECT count(*), count(*) FILTER (WHERE reason = 'stopped') FROM djactor.dead_letter}), '3|3',
	'... what is delayed of its own is given up');
is($node->safe_psql('app', q{SELECT count(*) FROM djactor.message}), 9999, '... what is of others stays');
cmp_ok(read_by_now() - $before, '<', 100, '... and was not read');

is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$node->stop;
done_testing();
