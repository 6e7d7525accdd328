# Hosts that wait are notified of mail, and need not look for it: mail that is sent, that becomes due, that was put off, given back, resumed,
# handed over by a type's new definition, or let go by a host that died. Polling is off: what nobody tells of would lie.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('hosted_wakeup', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off', max_prepared_transactions => 2,
	wal_level => 'replica', max_wal_senders => 1, synchronous_standby_names => 'nobody', synchronous_commit => 'local');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	SELECT djactor.define_actor_type('h', NULL, hosted => true, backoff => '1 ms', backoff_max => '1 ms');
	SELECT djactor.define_actor_type('h.other', NULL, hosted => true);
	SELECT djactor.define_actor_type('h.limited', NULL, hosted => true, concurrency => 1);
	SELECT djactor.define_actor_type(U&'h.gr\00f6\00dfe', NULL, hosted => true)});

my ($sender, $host) = map { session($node, 'app', 'app') } 1 .. 2;
my ($token, $id);

sub host_open
{
	my ($session, $lease) = @_;

	return $session->query(sprintf(q{LISTEN djactor_host;
		SELECT djactor.host_open(ARRAY['h', 'h.other', 'h.limited', U&'h.gr\00f6\00dfe'], lease => '%s')}, $lease // '10 min'));
}

# what the session says, and note if it was told something meanwhile
my %told;
sub ask
{
	my ($session, $sql) = @_;
	my $out = $session->query($sql);

	$told{$session} = $1 if $out =~ /Asynchronous notification "djactor_host" with payload "(.*?)"/;
	return $out;
}

# what was it told last since it was asked the last time, or began to wait?
sub hears
{
	my ($session) = @_;

	ask($session, 'SELECT 1');
	return delete $told{$session};
}

# takes one message; returns its payload, '' if there is none
sub take
{
	my ($session) = @_;
	my $row = (grep { /^\d+\|/ } split /\n/, ask($session, q{SELECT token, id, payload FROM djactor.take(1)}))[0];

	return '' unless $row;
	($token, $id) = split /\|/, $row;
	return (split /\|/, $row)[2];
}

sub complete
{
	my ($session) = @_;

	return (grep { /^\{/ } split /\n/, $session->query("SELECT djactor.complete('{$token}', '{$id}', '{1}')"))[0];
}

# waits($session): has found nothing, after all that it was told
sub waits
{
	my ($session) = @_;

	return wait_until('nothing to take, and nothing told since', sub { hears($session); take($session) eq '' && !hears($session) });
}

# is_told($session, $what, $payload): it is notified, and then there is that to take
sub is_told
{
	my ($session, $what, $payload) = @_;

	ok(wait_until("a notification of $what", sub { hears($session) }, 20), "$what: it is told");
	my $taken = '';
	ok(wait_until($what, sub { ($taken = take($session)) ne '' }, 5), '... and there is something to take');
	is($taken, $payload, '... which it is');
}

host_open($host);
waits($host);
is($host->query('SELECT state FROM djactor.host'), 'waiting', 'a host that has found nothing waits');

#
# Mail that is sent
#
$sender->query(q{SELECT djactor.send('h', 'a', '"sent"')});
is_told($host, 'mail', '"sent"');
is($host->query('SELECT state FROM djactor.host'), 'busy', '... and it does not wait while it is busy');
$sender->query(q{SELECT djactor.send('h', 'a', '"behind"')});
is(take($host), '', 'mail of an actor that it has is not handed out');
waits($host);
$sender->query("SELECT djactor.complete('{$token}', '{$id}', '{1}')");
is_told($host, 'what is behind a turn that another session has ended', '"behind"');
is(complete($host), '{done}', '... and is done');

# names($what, $sql, $payload): a host that waits hears that when this is executed
sub names
{
	my ($what, $sql, $payload) = @_;
	my $heard;

	waits($host);
	$sender->query($sql);
	wait_until("a notification of $what", sub { $heard = hears($host) }, 20);
	is($heard, $payload, "$what: the notification says so");
	wait_until($what, sub { take($host) ne '' && complete($host) eq '{done}' }, 5);
	while (take($host) ne '') { complete($host) }
}

names('mail of one type', q{SELECT djactor.send('h', k, '1') FROM unnest('{a,b}'::text[]) k}, 'mail h');
names('mail of another one', q{SELECT djactor.send('h.other', 'a', '1')}, 'mail h.other');
names('mail of two types', q{BEGIN; SELECT djactor.send('h', 'a', '1'); SELECT djactor.send('h.other', 'a', '1'); COMMIT}, 'mail');
names('a type whose name is not ASCII', q{SELECT djactor.send(U&'h.gr\00f6\00dfe', 'a', '1')}, 'mail');
names('mail that has become due', q{SELECT djactor.send('h.other', 'a', '1', deliver_at => clock_timestamp() + '1 s')}, 'mail h.other');

waits($host);
$sender->query(q{SELECT djactor.send('h', 'a', '"later"', deliver_at => clock_timestamp() + '10 min')});
ok(!hears($host), 'delayed mail is no news');
$sender->query(q{BEGIN; SELECT djactor.send('h', 'b', '"rolled back"'); ROLLBACK});
$sender->query(q{BEGIN; SELECT djactor.send('h', 'b', '"prepared"'); PREPARE TRANSACTION 'p'});
is(take($host), '', 'what is prepared is not there yet');
waits($host);
$sender->query(q{COMMIT PREPARED 'p'});
is_told($host, 'COMMIT PREPARED', '"prepared"');
complete($host);

#
# Mail that becomes due
#
waits($host);
$sender->query(q{SELECT djactor.send('h', 'c', '"delayed"', deliver_at => clock_timestamp() + '2 s')});
is(take($host), '', 'delayed mail is not there yet');
is_told($host, 'delayed mail', '"delayed"');
waits($host);
is($sender->query("SELECT djactor.fail($token, $id, '38000', 'no')"), 'retry', '... which fails');
is_told($host, 'a retry', '"delayed"');
waits($host);
is($sender->query("SELECT djactor.fail($token, $id, '40001', 'no')"), 'put_off', '... with a transient error');
is_told($host, 'mail that was put off', '"delayed"');
$sender->query(qq{BEGIN; SELECT djactor.begin_turn($token, $id); SELECT djactor.set_timer('t', '2 s', '"timer"'); CALL djactor.end_turn(); COMMIT});
waits($host);
is_told($host, 'a timer', '"timer"');
complete($host);

#
# A row that somebody has locked
#
waits($host);
$sender->query(q{BEGIN; SELECT FROM djactor.actor WHERE actor_key = 'a' FOR UPDATE});
as_role($node, 'app', 'app', q{SELECT djactor.send('h', 'a', '"locked"')});
is(take($host), '', 'an actor that is locked is not handed out');
waits($host);
$sender->query('COMMIT');
is_told($host, 'an actor that was locked', '"locked"');
complete($host);

#
# Pauses
#
for my $key ('NULL', "'d'")
{
	my $actor = $key eq 'NULL' ? '' : ", $key";

	waits($host);
	$sender->query(qq{SELECT djactor.send('h', 'd', '"first"')});
	is_told($host, 'an actor', '"first"');
	complete($host);
	$sender->query(qq{SELECT djactor.pause('h'$actor)});
	$sender->query(q{SELECT djactor.send('h', 'd', '"paused"')});
	is(take($host), '', 'what is paused is not there');
	# everybody has looked
	$sender->query(q{SELECT post(1, 1, 1, 't.work', 1); DELETE FROM sent; SELECT djactor.wait_idle('20 s', 't.work')});
	waits($host);
	$sender->query(qq{SELECT djactor.resume('h'$actor)});
	is_told($host, "resume('h'$actor)", '"paused"');
	complete($host);
}

# A sender has announced its mail, and a host finds the type paused before the commit is through, which waits for a standby that there is not.
waits($host);
my $slow = session($node, 'app', 'app');
$sender->query(q{SELECT djactor.pause('h')});
$slow->query('SET synchronous_commit = on');
$slow->start(q{SELECT djactor.send('h', 'd', '"slow"')});
my $waiting = q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'};
ok(wait_until('the commit waits', sub { $node->safe_psql('postgres', $waiting) =~ /^\d+$/ }), 'a commit waits');
my $looked_for = $sender->query(q{SELECT djactor.send('h', 'e', '"looked for"')});
waits($host);
$sender->query("SELECT djactor.cancel($looked_for)");
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM ($waiting) waiting");
$slow->finish;
waits($host);
$sender->query(q{SELECT djactor.resume('h')});
is_told($host, 'resume() for what was queued during the pause', '"slow"');
complete($host);
$slow->quit;

#
# Other sessions' claims
#
waits($host);
$sender->query(q{SELECT djactor.send('h.limited', k, to_jsonb(k)) FROM unnest('{x,y}'::text[]) k});
is_told($host, 'a limited type', '"x"');
is(take($host), '', 'the limit holds');
waits($host);
$sender->query("SELECT djactor.complete('{$token}', '{$id}', '{1}')");
is_told($host, 'the end of a claim of a limited type', '"y"');
is($sender->query("SELECT djactor.release('{$token}')"), 1, '... which is given back');
is(take($host), '"y"', '... and taken again');
complete($host);

# one that closes, one whose client is killed
for my $how ('closes', 'is killed')
{
	my $other = session($node, 'app', 'app');

	$other->query(q{SELECT djactor.host_open('{h}')});
	waits($host);
	$other->query(q{SELECT djactor.send('h', k, to_jsonb(k)) FROM unnest('{e,f}'::text[]) k});
	my @taken = grep { /"/ } split /\n/, $other->query('SELECT payload FROM djactor.take(2)');
	is("@taken", '"e" "f"', 'another host has taken mail');
	waits($host);
	if ($how eq 'closes')
	{
		$other->query('SELECT djactor.host_close()');
	}
	else
	{
		$other->{run}->kill_kill(grace => 0);
	}
	is_told($host, "when it $how", '"e"');
	complete($host);
	is(take($host), '"f"', '... all of it');
	complete($host);
	$other->quit if $how eq 'closes';
}

#
# A type that becomes hosted while it has mail
#
waits($host);
as_role($node, 'app', 'app', q{
	SELECT djactor.define_actor_type('h.other', 'public.work');
	SELECT djactor.pause('h.other');
	SELECT djactor.send('h.other', 'g', '"moved"')});
$sender->query(q{SELECT post(1, 1, 1, 't.work', 1); DELETE FROM sent; SELECT djactor.wait_idle('20 s', 't.work')});
waits($host);
$sender->query(q{BEGIN; SELECT djactor.alter_actor_type('h.other', hosted => true); SELECT djactor.resume('h.other'); COMMIT});
is_told($host, 'mail of a type that has become hosted', '"moved"');
complete($host);

#
# Mail that cannot be handled is no news, however often it is found. On servers where any NOTIFY wakes the resident, so does what it
# tells hosts: if that made it look again they would wake each other once a second.
#
$sender->query(q{SELECT djactor.pause('h', 'd')});
$sender->query(q{SELECT djactor.send('h', 'd', '"waits"')});
waits($host);
ok(wait_until('a sleeping pool', sub { $sender->query(q{
	SELECT bool_and(state = 'idle' AND now() - since > '1.8 s') FROM djactor.worker WHERE pid IS NOT NULL}) eq 't' }), 'the resident sleeps');
$sender->query(q{NOTIFY elsewhere});
sleep 3;
ok(!hears($host), 'the resident does not look through all mail because of a NOTIFY that is not for it');
$sender->query(q{NOTIFY djactor});
ok(wait_until('a notification', sub { hears($host) }), 'it does for one that is');
is(take($host), '', '... and the host finds nothing that it may have');
waits($host);
$sender->query(q{SELECT djactor.resume('h', 'd')});
is_told($host, 'what has waited', '"waits"');
complete($host);

#
# What a host does not serve is no news to it, and a host that drains gets none
#
waits($host);
$sender->query('SELECT djactor.host_drain(id) FROM djactor.host');
$sender->query(q{SELECT djactor.send('h', 'z', '1')});
$sender->query(q{SELECT post(1, 1, 1, 't.work', 1); SELECT djactor.wait_idle('20 s', 't.work')});
ok(!hears($host), 'a host that drains is not told');

is($node->safe_psql('app', 'SELECT sum(claims) FROM djactor.host'), 0, 'no claim is left');
# in the transaction that tells hosts of mail there may be nothing left to say what its type is called
$host->query('SELECT djactor.host_close()');
host_open($host);
waits($host);
is($node->safe_psql('app', q{BEGIN; SELECT FROM djactor.send('h', 'z', '1'); DROP EXTENSION djactor CASCADE; COMMIT; SELECT 'done'}),
	'done', 'DROP EXTENSION in a transaction that has sent to hosts');

is(log_count($node, qr/NOTIFY for/), 0, 'no notification is logged');
is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');
$_->quit for $sender, $host;
$node->stop;
done_testing();
