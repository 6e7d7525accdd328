# Rates and tenants with several workers, hosts that wait, and a restart (contract 28).
#
# Two workers together begin no more turns than a type's rate allows.  What waits for its turn keeps no worker busy, and
# starts none.  A host that waits is told when a turn may begin again.  After a restart counting begins anew, and tenants
# still take turns, also with a backlog of 100,000 actors.  Polling is off: what nobody wakes up for would lie.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('rates', 'djactor.poll_interval' => '1h', 'djactor.max_workers' => 2, 'djactor.idle_timeout' => '10min', fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE begun (serial serial, type text, key text, pid int DEFAULT pg_backend_pid(), at timestamptz DEFAULT clock_timestamp());
	CREATE FUNCTION begins(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO begun (type, key) VALUES ((djactor.self()).actor_type, (djactor.self()).actor_key);
		PERFORM pg_sleep((message->>'sleep')::float);
		RETURN state;
	END $$});

sub app
{
	my ($sql) = @_;

	return as_role($node, 'app', 'app', $sql);
}

sub idle
{
	my ($type) = @_;

	return wait_until("$type idle", sub { app("SELECT count(*) FROM djactor.message WHERE actor_type = '$type'") eq '0' });
}

# most($type): the most turns in half a second; they are noted a moment after they have begun
sub most
{
	my ($type) = @_;

	return app(qq{SELECT max(n) FROM (SELECT count(*) OVER (ORDER BY at RANGE BETWEEN CURRENT ROW AND interval '500 ms' FOLLOWING) AS n
		FROM begun WHERE type = '$type') s});
}

# Several workers: long turns, so that both are needed
app(q{
	SELECT djactor.define_actor_type('t.slow', 'begins', rate => '6/s');
	INSERT INTO djactor.message (actor_type, actor_key, payload) SELECT 't.slow', i::text, '{"sleep": 0.1}' FROM generate_series(1, 40) i});
ok(idle('t.slow'), 'slow turns of a type with a rate');
cmp_ok(most('t.slow'), '<=', 6, '... no more begin than it allows');
cmp_ok(app(q{SELECT count(DISTINCT pid) FROM begun WHERE type = 't.slow'}), '<=', 2, '... in two workers');

# Nobody is busy
app(q{
	SELECT djactor.define_actor_type('t.spent', 'begins', rate => '1/hour');
	SELECT djactor.define_actor_type('t.tenants', 'begins', rate => '1/hour', rate_by => 'key:-');
	INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.spent', i::text FROM generate_series(1, 1000) i;
	INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.tenants', i % 100 || '-' || i FROM generate_series(1, 1000) i});
ok(wait_until('spent', sub { app(q{SELECT count(*) FROM djactor.mailbox WHERE waits_for = 'rate'}) eq 999 + 900 }), 'what waits for a rate is shown');
ok(wait_until('idle workers', sub { $node->safe_psql('app', q{SELECT bool_and(state = 'idle') FROM djactor.worker}) eq 't' }), '... workers are idle');
my $used = sub { my $ticks = 0; for my $pid (worker_pids($node, 'app')) { open my $f, '<', "/proc/$pid/stat" or next; my @s = split / /, <$f>; $ticks += $s[13] + $s[14] } return $ticks };
my $before = $used->();
sleep 2;
cmp_ok($used->() - $before, '<', 40, '... and use no time');
app(q{SELECT djactor.send('t.spent', 'late'); SELECT djactor.send('t.tenants', '1-late')});
is(app(q{SELECT count(*) FROM begun WHERE type IN ('t.spent', 't.tenants')}), 101, '... no more turns have begun');

# Hosts are told
app(q{SELECT djactor.define_actor_type('t.hosted', NULL, hosted => true, rate => '2/3 s'), djactor.define_actor_type('t.hosted_by', NULL, hosted => true, rate => '1/3 s', rate_by => 'key:-')});
for my $type ('t.hosted', 't.hosted_by')
{
	my $host = session($node, 'app', 'app');
	my $take = sub { return (grep { /^\d+$/ } split /\n/, $host->query('SELECT count(*) FROM djactor.take(10, 10)'))[0] };

	$host->query("LISTEN djactor_host; SELECT djactor.host_open('{$type}', lease => '10 min')");
	app("INSERT INTO djactor.message (actor_type, actor_key) SELECT '$type', i % 2 || '-' || i FROM generate_series(1, 4) i");
	is($take->(), 2, "$type: a host takes what the rate allows");
	is($take->(), 0, '... and no more');
	ok(wait_until('notified', sub { $host->query('SELECT 1') =~ /notification/ }), '... and is told when there is more');
	is($take->(), 2, '... which it takes');
	$host->quit;
}

# A restart
app(q{SELECT djactor.drop_actor_type('t.tenants', true)});
$node->restart;
ok(wait_until('a turn', sub { app(q{SELECT count(*) FROM begun WHERE type = 't.spent'}) eq '2' }), 'after a restart counting begins anew');
is(app(q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.spent'}), 999, '... and goes on');

# A backlog of many actors
app(q{
	SELECT djactor.define_actor_type('t.fair', 'begins', fair_by => 'header:tenant');
	SELECT djactor.pause('t.fair');
	INSERT INTO djactor.message (actor_type, actor_key, headers) SELECT 't.fair', i::text, '{"tenant": "large"}' FROM generate_series(1, 100000) i});
app(q{SELECT djactor.resume('t.fair')});
wait_until('a backlog', sub { app(q{SELECT count(*) > 1000 FROM begun WHERE type = 't.fair'}) eq 't' });
app(q{INSERT INTO djactor.message (actor_type, actor_key, headers) VALUES ('t.fair', 'small', '{"tenant": "small"}')});
my $then = app(q{SELECT count(*) FROM begun WHERE type = 't.fair'});
ok(wait_until('the small tenant', sub { app(q{SELECT count(*) FROM begun WHERE type = 't.fair' AND key = 'small'}) eq '1' }), 'one message of a tenant beside 100,000 of another');
my $turn = app(q{SELECT count(*) FROM begun WHERE type = 't.fair' AND serial < (SELECT serial FROM begun WHERE key = 'small')});
note("sent after $then turns, handled as turn $turn");
cmp_ok($turn - $then, '<', 10000, '... waits for what the workers have begun');
cmp_ok(app(q{SELECT count(*) FROM djactor.message WHERE actor_type = 't.fair'}), '>', 50000, '... not for the backlog');

done_testing();
