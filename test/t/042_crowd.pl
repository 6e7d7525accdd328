# A server full of connections.
#
# A thousand sessions are open, and no more can be: as with web processes that each keep one. They idle, but
# for some that LISTEN for answers, as async Django processes do.
#
# - Workers are background workers and take none of max_connections: they run, and new ones start.
# - Every commit wakes them, from sleep too, and every ask is answered, by the wake-up and not by polling.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(sleep time);

use constant { IDLE => 995, LISTENERS => 100, CONNECTIONS => 1000 };

my $node = new_server('crowd',
	max_connections => CONNECTIONS,
	superuser_reserved_connections => 3,
	'djactor.poll_interval' => '1h',
	'djactor.idle_timeout' => '1s');

new_app($node, 'app');

# connect_idle($n): so many sessions as role app and nothing around them; a psql would be a process each.
sub connect_idle
{
	my ($n) = @_;
	my $startup = pack 'N (Z*)4 x', 196608, 'user', 'app', 'database', 'app';
	my @sockets = map { IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) or die "connect: $!" } 1 .. $n;

	for (@sockets)
	{
		print $_ pack('N', 4 + length $startup), $startup;
		$_->flush;
	}
	await($_) for @sockets;
	return @sockets;
}

# await($socket): reads messages of the server until it is ready for a query.
sub await
{
	my ($socket) = @_;

	while (1)
	{
		read($socket, my $head, 5) == 5 or die 'the connection was closed';
		my ($type, $length) = unpack 'a N', $head;

		read($socket, my $body, $length - 4) == $length - 4 or die 'the connection was closed';
		die "the server says: $body" if $type eq 'E';
		return if $type eq 'Z';
	}
}

# latencies($session): how long each of 30 asks takes with the workers awake, in ms, sorted.
sub latencies
{
	my ($session) = @_;

	return sort { $a <=> $b } map {
		my $start = time;

		$session->query(q{CALL djactor.ask('t.ask', 'a', '{}', '30 s')});
		1000 * (time - $start)
	} 1 .. 30;
}

# commits_per_second($session, $sender): so many messages, a transaction each, from one session.
sub commits_per_second
{
	my ($session, $sender) = @_;
	my $start = time;

	$session->query(qq{
		DO \$\$ BEGIN
			FOR i IN 1 .. 500 LOOP
				PERFORM post($sender, i, 1, 't.work', 20);
				COMMIT;
			END LOOP;
		END \$\$});
	return 500 / (time - $start);
}

as_role($node, 'app', 'app', q{
	CREATE FUNCTION echo(state jsonb, message jsonb) RETURNS djactor.result LANGUAGE sql AS $$ SELECT (state, message) $$;
	SELECT djactor.define_actor_type('t.ask', 'echo')});
my $session = session($node, 'app', 'app');
my $operator = session($node, 'app');    # a superuser, who may come in last

$session->query(q{CALL djactor.ask('t.ask', 'a', '{}', '30 s')});
my @alone = latencies($session);
my $alone = commits_per_second($session, 1);

my $start = time;
my @crowd = map { connect_idle(5) } 1 .. IDLE / 5;

for (@crowd[ 0 .. LISTENERS - 1 ])
{
	my $query = "LISTEN djactor_reply\0";

	print $_ 'Q', pack('N', 4 + length $query), $query;
	$_->flush;
	await($_);
}
push @crowd, map { eval { connect_idle(1) } } 1 .. 10;
like($@, qr/too many clients|remaining connection slots/, 'the server takes no more connections');
note(sprintf '%d connections in %.1f s', scalar @crowd, time - $start);

my @crowded = latencies($session);
my $crowded = commits_per_second($session, 2);
note(sprintf 'an ask: median %.1f ms alone, %.1f ms in the crowd; commits a second: %.0f, %.0f',
	$alone[15], $crowded[15], $alone, $crowded);
cmp_ok($crowded[15], '<', 500, 'asks are answered by wake-up');

sub handled
{
	return $session->query("SELECT count(*) FROM ledger WHERE sender = $_[0]") eq $_[1];
}

ok(wait_until('all', sub { handled(2, 500) }), 'what was sent is handled');
$operator->query('SELECT pg_terminate_backend(pid) FROM djactor.worker');
$session->query(q{SELECT post(3, 1, 50, 't.work', 50)});
ok(wait_until('all', sub { handled(3, 50) }), 'new workers start although no connection is free');
for my $i (1 .. 2)
{
	sleep 1.3;    # until all sleep
	$session->query("SELECT post(4, $i, 1, 't.work', 5)");
	ok(wait_until('it', sub { handled(4, $i) }), 'a commit wakes them from sleep');
}
close $_ for @crowd;
ok(wait_until('the crowd is gone', sub {
	$operator->query(q{SELECT count(*) < 10 FROM pg_stat_activity WHERE backend_type = 'client backend'}) eq 't' }),
	'the crowd leaves');
as_role($node, 'app', 'app', q{SELECT djactor.drop_actor_type('t.ask', true)});
check_ledger($node, 'app');
$_->quit for $session, $operator;
$node->stop;
done_testing();
