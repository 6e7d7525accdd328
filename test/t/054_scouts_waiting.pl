# A database whose owner keeps a scout waiting, or away, is no reason for the others to go without.
#
# - He has an extension command in an open transaction.
# - His database's settings make a scout's transaction wait for a safe snapshot.
# - He renames his database in an open transaction, so that no scout may come there.
# - ... again and again: the room for such commands is everybody's.
# - A catalog of his database is locked, so that a scout waits while it connects.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('waiting', 'djactor.max_workers' => 4, 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, $_, $_) for qw(mine yours);
new_app($node, 'serial', 'mine');
$node->safe_psql('postgres', 'ALTER ROLE mine CREATEDB');

# Mail that was held is let loose, which takes a scout.
my $resumed = 0;
sub resumes
{
	my ($name) = @_;

	$resumed++;
	$node->safe_psql('yours', "COPY djactor.home FROM STDIN;\n0\t0\t\t0\n\\.\n");
	as_role($node, 'yours', 'yours', qq{SELECT djactor.send('t.work', 'resumed $resumed'); SELECT djactor.resume()});
	ok(wait_until($name, sub { $node->safe_psql('yours', qq{SELECT 1 FROM djactor.actor WHERE actor_key = 'resumed $resumed'}) }), $name);
}

resumes('resume() lets mail run');

my $mine = session($node, 'mine', 'mine');
$mine->query('BEGIN');
$mine->query('ALTER EXTENSION djactor UPDATE');
as_role($node, 'mine', 'mine', 'CREATE EXTENSION IF NOT EXISTS djactor');
ok(wait_until('a scout', sub { process_ids($node, 'djactor scout') }), 'a scout waits for a command on the extension');
resumes('... and mail of another database is let loose');
$mine->query('ROLLBACK');

$mine->quit;

$mine = session($node, 'serial', 'mine');
as_role($node, 'serial', 'mine', q{
	ALTER DATABASE serial SET default_transaction_isolation = 'serializable';
	ALTER DATABASE serial SET default_transaction_deferrable = on;
	ALTER DATABASE serial SET default_transaction_read_only = on});
$mine->query('BEGIN ISOLATION LEVEL SERIALIZABLE');
$mine->query('SELECT count(*) FROM sent');
as_role($node, 'serial', 'mine', 'SET default_transaction_read_only = off; CREATE EXTENSION IF NOT EXISTS djactor');
resumes("a database's settings, and a serializable transaction: mail of another one is let loose");
$mine->query('COMMIT');
$mine->quit;

$node->stop;
$node->start;
ok(wait_drained($node, 'yours'), 'the server is up again');

# a launcher begins with all databases
my $rename = session($node, 'postgres', 'mine');
$rename->query('BEGIN');
$rename->query('ALTER DATABASE mine RENAME TO other');
my ($launcher) = process_ids($node, 'djactor launcher');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
ok(wait_until('another launcher', sub { my ($pid) = process_ids($node, 'djactor launcher'); $pid && $pid != $launcher }), 'a new launcher');
resumes('a database is being renamed: mail of another one is let loose');

$rename->query("ALTER DATABASE other RENAME TO mine; ALTER DATABASE mine RENAME TO other") for 1 .. 40;
as_role($node, 'yours', 'yours', q{SELECT djactor.send('t.work', 'awake')});
ok(wait_until('a worker', sub { $node->safe_psql('yours', 'SELECT count(*) FROM djactor.worker') }), 'a worker in another database');
my ($status, undef, $error) = $node->psql('postgres', 'DROP DATABASE yours');
is($error, '', '... is no reason not to drop that, though somebody renames his eighty times');
$rename->query('ROLLBACK');
$rename->quit;
ok(wait_until('workers come back', sub {
	as_role($node, 'mine', 'mine', q{SELECT djactor.send('t.work', 'back')});
	wait_drained($node, 'mine') }), 'the renamed database is served again');

# Without its cache file a new session reads pg_class.
my $offset = -s $node->logfile;
new_app($node, 'yours', 'yours');
$mine = session($node, 'mine');
$mine->query('BEGIN; LOCK TABLE pg_class IN ACCESS EXCLUSIVE MODE');
my $cache = $node->data_dir . '/base/' . $node->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'mine'}) . '/pg_internal.init';
unlink $cache or die "$cache: $!";
($launcher) = process_ids($node, 'djactor launcher');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
ok(wait_until('a scout', sub { $node->safe_psql('postgres', q{SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
	WHERE d.datname = 'mine' AND l.relation = 'pg_class'::regclass AND NOT l.granted}) }), 'a scout waits for a lock while it connects');
resumes('... and mail of another database is let loose');
ok(log_count($node, qr/lock timeout/, $offset), '... since the scout has given up');
$mine->query('ROLLBACK');
$mine->quit;
ok(wait_until('mine again', sub {
	as_role($node, 'mine', 'mine', q{SELECT djactor.send('t.work', 'again')});
	wait_drained($node, 'mine') }), '... and its own when the lock is gone');

is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$node->stop('immediate');
done_testing();
