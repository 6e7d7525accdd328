# Fewer places for workers than databases with mail: places change hands quickly, in the order in which databases have come
# to wait, and nobody is left out (which places are taken at all: 034, who does not give his back: 055).
#
# - A database without due mail gives its place at once to one that has some.
# - So does one whose worker waits for the server to get better.
# - Who waits longest is served first.
# - Mail without end in two databases keeps no third one waiting.
# - A worker that takes long to log in serves before it has to go.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_server('change', 'djactor.max_workers' => 1, 'djactor.poll_interval' => '1h', fsync => 'off');
my @apps = map { "app$_" } 1 .. 3;
my %session;

for (@apps)
{
	new_app($node, $_);
	as_role($node, $_, 'app', q{
		CREATE FUNCTION echo(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE sql AS 'SELECT $1, $2';
		SELECT djactor.define_actor_type('t.echo', 'public.echo')});
	$session{$_} = session($node, $_, 'app');
}
my $postgres = session($node, 'postgres');

# Milliseconds that an ask takes.
sub ask
{
	my ($database) = @_;
	my $start = time;

	$session{$database}->query(q{CALL djactor.ask('t.echo', 'k', '{}', '1 min')});
	return 1000 * (time - $start);
}

# A quarter of them take at most this: a slow machine makes some asks slow, not all.
sub quartile
{
	return (sort { $a <=> $b } @_)[ @_ / 4 ];
}

# ---- nothing to do ----
ask($_) for @apps, @apps;
my @asks = map { ask($_) } ('app1', 'app2') x 10;
my $quartile = quartile(@asks);
cmp_ok($quartile, '<', 180, 'two idle databases on one place, asked in turn: it changes hands at once');
diag("an ask took @{[ map { int } @asks ]} ms") if $quartile >= 180;

# ---- nothing to do but wait ----
# a message becomes due in app1 while its table is locked, for which the worker does not wait for long, and tries again later
$postgres->query(q{ALTER ROLE app IN DATABASE app1 SET lock_timeout = '10 ms'});
ask('app2');
my $lock = session($node, 'app1');
my $rounds = 0;
@asks = ();
while (@asks < 6 && $rounds++ < 20)
{
	my $offset = -s $node->logfile;

	$session{app1}->query(qq{SELECT djactor.send('t.work', 'later$rounds', deliver_at => clock_timestamp() + '0.4 s')});
	ask('app1');
	$lock->query('BEGIN');
	$lock->query('LOCK TABLE djactor.message');
	# on a slow machine it may have been handled by now
	push @asks, ask('app2')
	  if wait_until('trouble', sub { log_count($node, qr/canceling statement due to lock timeout/, $offset) }, 2);
	$lock->query('ROLLBACK');
	wait_drained($node, 'app1') or last;
}
is(scalar @asks, 6, 'a worker waits, since somebody keeps a table locked');
$quartile = quartile(@asks);
cmp_ok($quartile, '<', 180, '... and gives its place to another database meanwhile');
diag("an ask took @{[ map { int } @asks ]} ms") if $quartile >= 180;
$lock->quit;
$postgres->query(q{ALTER ROLE app IN DATABASE app1 RESET lock_timeout});

# ---- first come, first served ----
for my $round ([ 1, 3, 2 ], [ 1, 2, 3 ], [ 1, 3, 2 ])
{
	my ($holder, @order) = map { "app$_" } @$round;
	my %at;

	$lock = session($node, $holder);
	$lock->query('SELECT pg_advisory_lock(4715)');
	$session{$holder}->query(q{SELECT djactor.send('t.work', 'holds', '{"lock": 4715}')});
	ok(wait_until("$holder has the place", sub { $postgres->query(qq{SELECT 1 FROM pg_stat_activity
		WHERE backend_type = 'djactor worker' AND datname = '$holder' AND wait_event = 'advisory'}) }), "$holder has the only place");
	$session{$_}->query(q{SELECT djactor.send('t.work', 'next')}) for @order;
	sleep 0.5;
	$lock->quit;
	ok(wait_drained($node, $_), "$_ is served") for @order;
	$at{$_} = $node->safe_psql($_, q{SELECT extract(epoch FROM at) FROM ledger WHERE actor_key = 'next' ORDER BY serial DESC LIMIT 1}) for @order;
	is_deeply([ sort { $at{$a} <=> $at{$b} } @order ], \@order, '... in the order in which they have come to wait');
}

# ---- mail without end ----
for (qw(app1 app2))
{
	as_role($node, $_, 'app', q{
		CREATE FUNCTION endless(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM djactor.send('t.endless', (djactor.self()).actor_key);
			PERFORM pg_sleep(0.001);
			RETURN to_jsonb(coalesce(state::text::int, 0) + 1);
		END $$;
		SELECT djactor.define_actor_type('t.endless', 'public.endless', initial_state => '0');
		SELECT djactor.send('t.endless', 'k' || g) FROM generate_series(1, 20) g});
}
sub turns
{
	return $node->safe_psql($_[0], q{SELECT coalesce(sum(turns), 0) FROM djactor.actor WHERE actor_type = 't.endless'});
}
ok(wait_until("$_ is at work", sub { turns($_) > 20 }), "$_ has mail without end") for qw(app1 app2);
my %before = map { $_ => turns($_) } qw(app1 app2);
my $slowest = (sort { $b <=> $a } map { ask('app3') } 1 .. 5)[0];
cmp_ok($slowest, '<', 10_000, 'a third database is served all the same');
ok(wait_until("$_ goes on", sub { turns($_) > $before{$_} + 100 }), "... and $_ goes on") for qw(app1 app2);
$node->safe_psql($_, q{SELECT djactor.pause('t.endless')}) for qw(app1 app2);

# ---- a slow login ----
$node->append_conf('postgresql.conf', 'post_auth_delay = 1');
$node->reload;
ok(wait_until('slow logins', sub { my $start = time; $node->safe_psql('postgres', 'SELECT 1'); time - $start > 1 }), 'each login takes a second');
for my $round (1 .. 3)
{
	$session{$_}->query(qq{SELECT djactor.send('t.work', 'slow$round')}) for @apps;
	ok(wait_until("$_ is served", sub { $session{$_}->query(qq{SELECT 1 FROM djactor.actor WHERE actor_key = 'slow$round'}) }, 30),
		"$_ is served nevertheless") for @apps;
}

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$_->quit for $postgres, values %session;
$node->stop('immediate');
done_testing();
