# The next turn of an actor does not meet the locks of the one before: a transaction that has run turns gives their actors back
# when it has released its locks, not as soon as it is committed or rolled back. So an advisory lock that is tried in vain is
# never the actor's own. Workers do so in any case; this is about hosts and drain().

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir_short();
my ($library, $file) = ("$directory/slow_end.so", "$directory/wait");
chomp(my $headers = `pg_config --includedir-server`);

system('cc', '-shared', '-fPIC', '-isystem', $headers, '-o', $library, "$FindBin::RealBin/slow_end.c") == 0
  or die 'slow_end.c does not compile';

my $node = new_server('locks', shared_preload_libraries => "$library, djactor", 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app');
$node->safe_psql('app', "CREATE FUNCTION slow_end(text) RETURNS void LANGUAGE c AS '$library'");
as_role($node, 'app', 'app', q{
	SELECT djactor.define_actor_type('h', NULL, hosted => true);
	SELECT djactor.send('h', 'k') FROM generate_series(1, 2)});

my ($first, $second) = map { session($node, 'app', 'app') } 1 .. 2;
my ($token, $id);

# takes one message; returns whether there is one
sub take
{
	my ($session) = @_;
	my $row = (grep { /^\d+\|/ } split /\n/, $session->query('SELECT token, id FROM djactor.take(1, 1)'))[0];

	($token, $id) = split /\|/, $row // '';
	return defined $row;
}

# ends_slowly($sql): the first session's transaction has ended, but for its locks
sub ends_slowly
{
	my ($sql) = @_;
	my $offset = -s $node->logfile;

	PostgreSQL::Test::Utils::append_to_file($file, '');
	$first->query("SELECT slow_end('$file')");
	$first->start($sql);
	return wait_until('a slow end', sub { log_count($node, qr/slow end/, $offset) });
}

sub let_end
{
	unlink $file or die "$file: $!";
	return $first->finish;
}

#
# A host that commits a turn
#
$_->query(q{SELECT djactor.host_open('{h}', lease => '10 min')}) for $first, $second;
ok(take($first), 'a host has a turn');
$first->query('BEGIN');
$first->query("SELECT djactor.begin_turn($token, $id), pg_advisory_xact_lock(4716, 1)");
$first->query(q{CALL djactor.end_turn('1')});
ok(ends_slowly('COMMIT'), '... whose transaction has yet to release its locks');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), 1, '... but is committed');
ok(!take($second), '... another host does not get the next turn of that actor');
let_end();
ok(wait_until('mail', sub { take($second) }), '... until they are gone');
is($second->query('SELECT pg_try_advisory_xact_lock(4716, 1)'), 't', '... and does not meet them');
$second->query("SELECT djactor.complete('{$token}', '{$id}', '{1}')");

#
# One whose transaction is rolled back
#
as_role($node, 'app', 'app', q{SELECT djactor.send('h', 'k')});
$first->query('BEGIN');
ok(wait_until('mail', sub { take($first) }), 'a host has taken mail in a transaction');
$first->query('SELECT pg_advisory_xact_lock(4716, 1)');
ok(ends_slowly('ROLLBACK'), '... which is rolled back');
ok(!take($second), '... another host does not get it');
let_end();
ok(wait_until('mail', sub { take($second) }), '... until the locks are gone');
is($second->query('SELECT pg_try_advisory_xact_lock(4716, 1)'), 't', '... which it does not meet');
$second->query("SELECT djactor.complete('{$token}', '{$id}', '{1}')");

#
# drain(); a worker has the next turn
#
$first->query('BEGIN');
$first->query(q{INSERT INTO sent VALUES (1, 1, 't.work', 'k'); SELECT djactor.send('t.work', 'k', '{"sender": 1, "seq": 1}')});
$first->query('SELECT djactor.drain()');
ok(ends_slowly('COMMIT'), 'a turn of drain() is committed');
is($node->safe_psql('app', 'SELECT count(*) FROM ledger'), 1, '... and is seen');
as_role($node, 'app', 'app', q{
	INSERT INTO sent VALUES (1, 2, 't.work', 'k'), (1, 3, 't.work', 'other');
	SELECT djactor.send('t.work', 'k', '{"sender": 1, "seq": 2}');
	SELECT djactor.send('t.work', 'other', '{"sender": 1, "seq": 3}')});
ok(wait_until('another actor', sub { $node->safe_psql('app', q{SELECT 1 FROM ledger WHERE seq = 3}) }), '... a worker is there');
is($node->safe_psql('app', 'SELECT count(*) FROM ledger WHERE seq = 2'), 0, '... and leaves that actor alone');
let_end();
ok(wait_drained($node, 'app'), '... until the locks are gone');
is($node->safe_psql('app', q{SELECT string_agg(seq || ' ' || turn, ', ' ORDER BY serial) FROM ledger WHERE actor_key = 'k'}), '1 1, 2 2', '... and then has its turn');

is(log_count($node, qr/OVERLAP|PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed, no two turns of one actor at once');
$_->quit for $first, $second;
$node->stop;
done_testing();
