# Databases, types and copies come and go although hosts are connected: DROP DATABASE ends their sessions as it ends workers; drop_actor_type waits
# for what is in flight; a copy, and mail that was replicated, gives its hosts nothing until resume(); DROP EXTENSION and what it makes anew leave no claim behind.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('hosted_databases', Init => [ allows_streaming => 'logical' ], 'djactor.max_workers' => 3, 'djactor.poll_interval' => '1h', fsync => 'off');

for my $database ('app', 'gone')
{
	new_app($node, $database);
	as_role($node, $database, 'app', q{SELECT djactor.define_actor_type('h', NULL, hosted => true)});
}

# a host of a database that has taken one message
sub busy_host
{
	my ($database) = @_;
	my $session = session($node, $database, 'app');

	$session->query(q{SELECT djactor.host_open('{h}')});
	$session->query(q{SELECT djactor.send('h', 'a', '1'), djactor.send('h', 'a', '2')});
	($session->{token}, $session->{id}) = split /\|/, $session->query('SELECT token, id FROM djactor.take(1)');
	ok($session->{id}, "a host of $database has mail");
	return $session;
}

sub complete
{
	my ($session) = @_;

	return $session->query("SELECT djactor.complete('{$session->{token}}', '{$session->{id}}', '{1}')");
}

#
# DROP DATABASE
#
my $host = busy_host('gone');
{
	my (undef, undef, $error) = $node->psql('postgres', 'DROP DATABASE gone');

	like($error, qr/is being accessed by other users/, 'a host is a client like others: it keeps DROP DATABASE out');
}
$host->quit;
ok(wait_until('dropped', sub { ($node->psql('postgres', 'DROP DATABASE IF EXISTS gone'))[0] == 0 }), 'DROP DATABASE when its host has gone');

#
# A copy
#
$host = busy_host('app');
$host->quit;
ok(wait_until('copied', sub { ($node->psql('postgres', 'CREATE DATABASE copy TEMPLATE app OWNER app'))[0] == 0 }), 'a copy is made while mail waits');
my $of_copy = session($node, 'copy', 'app');
$of_copy->query(q{LISTEN djactor_host; SELECT djactor.host_open('{h}')});
is($of_copy->query('SELECT count(*) FROM djactor.take(10)'), 0, 'a copy gives its hosts nothing');
ok(wait_until('it is held', sub { $of_copy->query('SELECT djactor.held()') =~ /t/ }), '... since it is held');
# to be changed makes the type known to the copy's run queue
$of_copy->query(q{SELECT djactor.alter_actor_type('h', max_attempts => 5); SELECT djactor.send('h', 'b', '1')});
is($of_copy->query('SELECT count(*) FROM djactor.take(10)'), 0, '... nor what is sent to it');
as_role($node, 'copy', 'app', 'SELECT djactor.resume()');
ok(wait_until('a notification', sub { $of_copy->query('SELECT 1') =~ /djactor_host/ }, 20), 'resume() has the host notified');
my @ids;
ok(wait_until('mail', sub { push @ids, map { /^(\d+)$/ ? $1 : () } split /\n/, $of_copy->query('SELECT id FROM djactor.take(10, 10)'); @ids == 3 }), '... and hands out all');
$of_copy->query('SELECT djactor.host_close()');
$of_copy->quit;

#
# drop_actor_type
#
$host = session($node, 'app', 'app');
$host->query(q{SELECT djactor.host_open('{h}')});
($host->{token}, $host->{id}) = split /\|/, do {
	my $row = '';
	wait_until('mail', sub { ($row = $host->query('SELECT token, id FROM djactor.take(1)')) ne '' });
	$row;
};
my $sql = session($node, 'app', 'app');
$sql->start(q{SELECT djactor.drop_actor_type('h', true)});
ok(wait_until('it waits', sub { $node->safe_psql('app', q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%drop_actor_type%' AND state = 'active' AND pid <> pg_backend_pid()}) eq '1' }), 'drop_actor_type waits for what is in flight');
like(complete($host), qr/^\{(done|halted|gone|locked)\}$/, '... which can be ended');
$sql->finish;
is($sql->{err}, '', '... and then drops the type') or $sql->query(q{SELECT djactor.drop_actor_type('h', true)});
is($sql->query('SELECT count(*) FROM djactor.message') . $sql->query(q{SELECT count(*) FROM djactor.actor WHERE actor_type = 'h'}), '00', '... with all its mail');
is($host->query('SELECT claims, types FROM djactor.host'), '0|{}', 'the host has nothing left');
$sql->query(q{SELECT djactor.define_actor_type('h', NULL, hosted => true); SELECT djactor.send('h', 'a', '"anew"')});
my $got = '';
ok(wait_until('mail', sub { ($got = $host->query('SELECT token, id FROM djactor.take(1)')) ne '' }), 'it serves the type when that is defined anew');
($host->{token}, $host->{id}) = split /\|/, $got;
is(complete($host), '{done}', '...');

#
# DROP EXTENSION
#
$sql->query(q{SELECT djactor.send('h', 'a', '"lost"')});
ok(wait_until('mail', sub { ($got = $host->query('SELECT token, id FROM djactor.take(1)')) ne '' }), 'a host has mail');
($host->{token}, $host->{id}) = split /\|/, $got;
$sql->query('DROP EXTENSION djactor CASCADE');
$sql->query('CREATE EXTENSION djactor');
$sql->query(q{SELECT djactor.define_actor_type('h', NULL, hosted => true); SELECT djactor.send('h', 'a', '"of the new one"')});
unlike(eval { complete($host) } // '', qr/done/, 'what it had of the old extension is not done in the new one');
$host->quit;
$host = session($node, 'app', 'app');
$host->query(q{SELECT djactor.host_open('{h}')});
ok(wait_until('mail', sub { $host->query(q{SELECT payload FROM djactor.take(1)}) =~ /of the new one/ }), 'the new one works');

#
# Mail that arrives by logical replication
#
my $subscriber = new_server('hosted_subscriber', Init => [ allows_streaming => 'logical' ], 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off');
new_app($subscriber, 'app');
as_role($subscriber, 'app', 'app', q{SELECT djactor.define_actor_type('h', NULL, hosted => true)});
$subscriber->safe_psql('app', q{ALTER SEQUENCE djactor.message_id_seq RESTART 1000000});
as_role($node, 'app', 'app', q{SELECT djactor.send('h', 'copied', '"copied"')});
$node->safe_psql('app', 'CREATE PUBLICATION mail FOR TABLE djactor.message');
my $there = session($subscriber, 'app', 'app');
$there->query(q{LISTEN djactor_host; SELECT djactor.host_open('{h}')});
$subscriber->safe_psql('app', q{CREATE SUBSCRIPTION mail CONNECTION '} . $node->connstr . q{ dbname=app' PUBLICATION mail});
$subscriber->wait_for_subscription_sync($node, 'mail', 'app');
as_role($node, 'app', 'app', q{SELECT djactor.send('h', 'streamed', '"streamed"')});
$node->wait_for_catchup('mail');
my $arrived = $subscriber->safe_psql('app', 'SELECT count(*) FROM djactor.message');
is($subscriber->safe_psql('app', q{SELECT count(*) FROM djactor.message WHERE actor_key IN ('copied', 'streamed') AND aside = 'held'}), 2, 'what arrives by replication is held');

# takes all that there is; the words
sub words
{
	return join(', ', sort grep { /\w/ && !/notification/ } split /\n/, $there->query(q{SELECT payload #>> '{}' FROM djactor.take(10, 10)}));
}
$there->query('SELECT pg_notify($$djactor$$, $$$$)');
is(words(), '', '... and hosts get nothing of it');
$there->query(q{SELECT djactor.send('h', 'own', '"own"')});
is(words(), 'own', '... but their own mail');
like($there->query(q{SELECT djactor.wait_idle('10 ms', 'h')}), qr/f/, '... for which the type is not idle');
$subscriber->safe_psql('app', 'ALTER SUBSCRIPTION mail DISABLE');
is(words(), '', 'they wait');
as_role($subscriber, 'app', 'app', 'SELECT djactor.resume()');
ok(wait_until('a notification', sub { $there->query('SELECT 1') =~ /djactor_host/ }, 20), 'resume() has the hosts notified');
my $got_there = '';
ok(wait_until('mail', sub { $got_there = join(', ', grep { $_ } $got_there, words()); $got_there =~ /copied/ && $got_there =~ /streamed/ }), '... and hands it out');
is(scalar(split /, /, $got_there), $arrived, '... all that has arrived, once');
$subscriber->safe_psql('app', q{ALTER SUBSCRIPTION mail SET (slot_name = NONE); DROP SUBSCRIPTION mail});
$there->quit;

is(log_count($_, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed') for $node, $subscriber;
$_->quit for $host, $sql;
$subscriber->stop;
$node->stop;
done_testing();
