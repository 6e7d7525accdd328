# Hosts and their sessions die at any moment. What they had is with others at once; what was being completed is completed, or is not done
# at all; a token that has outlived its claim, or the server's memory, is stale; who died again and again is found, and nobody else charged.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('hosted_deaths', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', 'djactor.max_crashes' => 2, fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{SELECT djactor.define_actor_type('h', NULL, hosted => true)});
my $sql = session($node, 'app', 'app');

# a host: a session, with what it has taken last
sub host
{
	my ($lease) = @_;
	my $session = session($node, 'app', 'app');

	$session->{host} = $session->query(sprintf(q{SELECT djactor.host_open('{h}', lease => '%s')}, $lease // '10 min'));
	return $session;
}

# take($host, $mailboxes, $messages): the words; {tokens} and {ids} by word
sub take
{
	my ($host, $mailboxes, $messages) = @_;
	my @words;

	for (split /\n/, $host->query(sprintf(q{SELECT token, id, payload #>> '{}' FROM djactor.take(%d, %d)}, $mailboxes // 100, $messages // 10)))
	{
		my ($token, $id, $word) = split /\|/;

		$host->{turns}{$word} = [ $token, $id ];
		push @words, $word;
	}
	return "@words";
}

sub take_until
{
	my ($host, $words) = @_;
	my $got = '';

	wait_until("taken: $words", sub { ($got = take($host)) ne '' });
	return is($got, $words, "$words: taken");
}

sub complete
{
	my ($host, $session, @words) = @_;
	my ($tokens, $ids) = map { my $n = $_; join ',', map { $host->{turns}{$_}[$n] } @words } 0, 1;

	return ($session // $host)->query(sprintf(q{SELECT djactor.complete('{%s}', '{%s}', array_fill('1'::jsonb, '{%d}'))}, $tokens, $ids, scalar @words));
}

sub begin_turn
{
	my ($host, $session, $word) = @_;

	$session->query(sprintf('BEGIN; SELECT djactor.begin_turn(%s, %s)', @{ $host->{turns}{$word} }));
}

sub put
{
	my ($key, @words) = @_;

	$sql->query(sprintf(q{SELECT djactor.send('h', '%s', to_jsonb(w)) FROM unnest('{%s}'::text[]) w}, $key, join ',', @words));
}

# as when its process is killed
sub client_dies
{
	my ($host) = @_;

	$host->{run}->kill_kill(grace => 0);
	ok(wait_until('the host is gone', sub { $sql->query("SELECT count(*) FROM djactor.host WHERE id = $host->{host}") eq '0' }, 20), 'the host is gone');
}

sub backend_of { my ($session) = @_; return $session->query('SELECT pg_backend_pid()'); }
sub dead { return $sql->query(q{SELECT coalesce(string_agg(payload #>> '{}' || ' ' || reason, ', ' ORDER BY id), '') FROM djactor.dead_letter}); }
sub crashes { return $sql->query(q{SELECT coalesce(string_agg(payload #>> '{}' || ' ' || crashes, ', ' ORDER BY id), '') FROM djactor.message WHERE crashes > 0}); }
sub turns { my ($key) = @_; return $sql->query(qq{SELECT turns FROM djactor.actor WHERE actor_key = '$key'}); }

#
# A host whose client is killed
#
my ($one, $two) = (host(), host());

put('a', 'a1', 'a2');
put('b', 'b1');
is(take($one), 'a1 a2 b1', 'a host has mail');
is(complete($one, undef, 'a1'), '{done}', '... has done some of it');
is(take($two), '', 'another host has none');
client_dies($one);
take_until($two, 'b1 a2');
is(complete($one, $sql, 'a2', 'b1'), '{stale,stale}', 'what the dead host still has to say is stale');
begin_turn($two, $sql, 'a2');
$sql->query('CALL djactor.end_turn(); COMMIT');
is(complete($two, undef, 'b1'), '{done}', 'the other one does it');
is(turns('a'), 2, '... once');
is(crashes() . dead(), '', 'nobody is charged');

#
# A transaction that completes outlives its host
#
for my $end ('COMMIT', 'ROLLBACK')
{
	$one = host();
	put('c', 'c1', 'c2');
	is(take($one), 'c1 c2', "$end: a host has mail");
	begin_turn($one, $sql, 'c1');
	client_dies($one);
	$sql->query(q{CALL djactor.end_turn('"c1"')});
	is(take($two), '', '... which nobody else gets while it is being completed');
	$sql->query($end);
	take_until($two, $end eq 'COMMIT' ? 'c2' : 'c1 c2');
	is(complete($two, undef, $end eq 'COMMIT' ? 'c2' : ('c1', 'c2')), $end eq 'COMMIT' ? '{done}' : '{done,done}', '... and then the rest');
}
is(turns('c'), 4, 'each message had one turn');

#
# pg_terminate_backend
#
$one = host();
put('d', 'd1', 'd2');
is(take($one), 'd1 d2', 'a host has mail');
my $completing = session($node, 'app', 'app');
$completing->query(q{CREATE TABLE seen (what text)});
begin_turn($one, $completing, 'd1');
$completing->query(q{INSERT INTO seen VALUES ('d1'); CALL djactor.end_turn('"d1"')});
$node->safe_psql('app', sprintf('SELECT pg_terminate_backend(%d)', $completing->{pid} //= $node->safe_psql('app', q{SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'})));
ok(wait_until('rolled back', sub { $sql->query('SELECT claims FROM djactor.host WHERE id = ' . $one->{host}) eq '1' && $sql->query(q{SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'}) eq '0' }),
	'a completing session is terminated');
is($sql->query('SELECT count(*) FROM seen'), 0, '... what it did is undone');
is(take($two), '', '... the host still has its mail');
is(complete($one, $sql, 'd1', 'd2'), '{done,done}', '... and completes it in another session');

put('d', 'd3');
is(take($one), 'd3', 'a host has mail');
my $pid = backend_of($one);
$node->safe_psql('app', "SELECT pg_terminate_backend($pid)");
take_until($two, 'd3');
is(complete($two, undef, 'd3'), '{done}', 'a host whose session is terminated has its mail with another');
is($sql->query('SELECT count(*) FROM djactor.host'), 1, '... and is no host any more');

#
# A mailbox whose host died twice is handed out alone, and is charged if that dies, too
#
put('e', 'e1', 'e2');
for my $time (1, 2)
{
	$one = host();
	is(take($one), 'e1 e2', "death $time with it");
	client_dies($one);
}
put('f', 'f1');
put('g', 'g1');
is(take($two), 'e1', 'it is handed out alone, one message of it, and nothing with it');
is(take($two), '', '... nor after it');
$one = host();
is(take($one), 'f1 g1', '... while other hosts take the others\' mail');
is(complete($two, undef, 'e1'), '{done}', 'if it comes to a good end');
is(take($two), 'e2', '... the rest follows');
is(complete($two, undef, 'e2') . complete($one, undef, 'f1', 'g1'), '{done}{done,done}', '... and all is done');
is(crashes() . dead(), '', 'nobody is charged');

# a host that holds something gets no suspect
put('f', 'f2');
is(take($two), 'f2', 'a host has something');
put('e', 'e3', 'e4');
for my $time (1, 2)
{
	is(take($one), 'e3 e4', "death $time");
	client_dies($one);
	$one = host();
}
put('g', 'g2');
is(take($two), '', 'a suspected actor is not handed to a host that holds something; the host gets ready for it');
is(complete($two, undef, 'f2'), '{done}', '... is empty');
is(take($two), 'e3', '... and gets it');
is(take($one), 'g2', 'others get the rest');
client_dies($two);
ok(wait_until('charged', sub { crashes() eq 'e3 1' }), 'the death of the host that had it alone is charged to the message');
is(complete($one, undef, 'g2'), '{done}', 'nobody else is affected');
take_until($one, 'e3');
is($one->query('SELECT crashes FROM djactor.message WHERE id = ' . $one->{turns}{e3}[1]), 1, '... it is handed out alone again');
client_dies($one);
ok(wait_until('dead', sub { dead() eq 'e3 crashed' }), 'after djactor.max_crashes it is a dead letter');
$one = host();
take_until($one, 'e4');
is(complete($one, undef, 'e4'), '{done}', 'its actor goes on');

#
# host_crashed: the supervisor knows who it was
#
put($_, $_ . '1') for 'a' .. 'd';
is(take($one), 'a1 b1 c1 d1', 'a host has mail of four actors');
my $dead_host = $one->{host};
my $charged = $one->{turns}{b1}[1];
client_dies($one);
is($sql->query("SELECT djactor.host_crashed($dead_host, '{$charged}')"), 't', 'its supervisor says which message it was executing');
is($sql->query("SELECT djactor.host_crashed($dead_host, '{$charged}')"), 'f', '... once');
ok(wait_until('charged', sub { crashes() eq 'b1 1' }), 'that one is charged');
for my $time (2)
{
	$one = host();
	wait_until('three are taken', sub { (my $got = take($one, 3)) =~ /1/ });
}
is(complete($one, undef, grep { $one->{turns}{$_} && $_ ne 'b1' } 'a1', 'c1', 'd1'), '{done,done,done}', 'the others are not, and run together');
take_until($one, 'b1');
is($sql->query("SELECT djactor.host_crashed($one->{host}, '{$charged}')"), 't', 'a report that comes before the session has ended');
is($sql->query("SELECT count(*) FROM djactor.host WHERE id = $one->{host}"), 0, '... ends the host');
ok(wait_until('dead', sub { dead() =~ /b1 crashed/ }), '... and charges: a dead letter after max_crashes');
is($one->query(q{SELECT djactor.host_open('{h}') > 0}), 't', 'a session whose host was ended can open another');

#
# A backend that dies between begin_turn() and end_turn() takes the server down: its turn is charged, no other
#
$one = host();
put($_, $_ . ' deadly') for 'l';
put($_, $_ . ' innocent') for 'm';
take_until($one, 'l deadly m innocent');
for my $death (1, 2)
{
	my ($deadly, $innocent) = map { session($node, 'app', 'app') } 1, 2;
	my $pid = backend_of($deadly);

	begin_turn($one, $innocent, 'm innocent') if $death == 1;
	begin_turn($one, $deadly, 'l deadly');
	ok(kill_backend($node, $pid), "a backend dies in a turn: death $death");
	$sql = session($node, 'app', 'app');
	$one = host();
	if ($death == 1)
	{
		ok(wait_until('charged', sub { crashes() eq 'l deadly 1' }), '... its message is charged, and no other');
		my %got;
		ok(wait_until('both are handed out, one alone', sub {
			my $got = take($one);

			$got{$got} = 1 if $got;
			complete($one, undef, $got) if $got eq 'm innocent';
			return $got{'l deadly'} && $got{'m innocent'} }), '... it is handed out alone, and so is none that is innocent but after it or before');
	}
	else
	{
		ok(wait_until('dead', sub { dead() =~ /l deadly crashed/ }), '... until it is a dead letter');
	}
}
is(turns('m'), 1, 'the innocent one was handled, once');
is(crashes(), '', '... and is not charged');

#
# kill -9 of a backend: the server's memory is new, and no token of before is good
#
($one, $two) = (host(), undef);
put('k', 'k1', 'k2', 'k3');
take_until($one, 'k1 k2 k3');
is(complete($one, undef, 'k1'), '{done}', 'one is done before the crash');
my $victim = session($node, 'app', 'app');
my $host_id = $one->{host};
my @old = @{ $one->{turns}{k2} };
ok(kill_backend($node, backend_of($victim)), 'a backend is killed, the server is back');
$sql = session($node, 'app', 'app');
$two = host();
take_until($two, 'k2 k3');
is($sql->query("SELECT djactor.complete('{$old[0]}', '{$old[1]}', '{1}')"), '{stale}', 'a token of before the crash is stale');
is($sql->query("SELECT djactor.fail($old[0], $old[1], '38000', 'x')"), 'stale', '... for fail()');
is($sql->query("SELECT djactor.release('{$old[0]}')"), 0, '... for release()');
is($sql->query("SELECT djactor.heartbeat($host_id)"), 'f', '... and the host is gone');
is(complete($two, undef, 'k2', 'k3'), '{done,done}', 'the new one is good');
is(turns('k'), 3, 'each message had one turn');
$node->stop('immediate');
$node->start;
$sql = session($node, 'app', 'app');
is($sql->query("SELECT djactor.complete('{$two->{turns}{k3}[0]}', '{$two->{turns}{k3}[1]}', '{1}')"), '{stale}', 'nor after a restart');
is($sql->query('SELECT count(*) FROM djactor.message'), 0, 'no mail is left');

is(log_count($node, qr/PANIC|TRAP:/), 0, 'nothing else crashed');
$sql->quit;
$node->stop;
done_testing();
