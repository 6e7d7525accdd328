# drain() keeps its claims until its transaction ends: however many they are, others' mail finds room in the run queue.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('room', 'djactor.max_workers' => 2, 'djactor.run_queue_size' => 1024, fsync => 'off');

new_app($node, $_, $_) for qw(mine yours);
as_role($node, 'yours', 'yours', q{SELECT djactor.send('t.work', 'first')});
ok(wait_drained($node, 'yours'), 'a database is served');

my $mine = session($node, 'mine', 'mine');
$mine->query('BEGIN');
$mine->query(q{
	CREATE FUNCTION nothing(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
	SELECT djactor.define_actor_type('t.nothing', 'public.nothing');
	INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.nothing', g FROM generate_series(1, 2000) g;
	SAVEPOINT s});
$mine->start('SELECT djactor.drain()');
$mine->finish;
like($mine->{err}, qr/run queue of djactor is full/, 'a transaction drains more mailboxes than there is room for');
$mine->query('ROLLBACK TO s');

as_role($node, 'yours', 'yours', q{SELECT djactor.send('t.work', 'second')});
ok(wait_drained($node, 'yours'), '... and as long as it is open, mail in another database is handled');
as_role($node, 'yours', 'yours', q{SELECT djactor.send('t.work', 'k' || g) FROM generate_series(1, 3000) g});
ok(wait_drained($node, 'yours'), '... also of many actors');
$mine->query('ROLLBACK');

$mine->query(q{
	BEGIN;
	CREATE FUNCTION nothing(state jsonb, message jsonb) RETURNS void LANGUAGE sql AS '';
	SELECT djactor.define_actor_type('t.nothing', 'public.nothing')});
for (1 .. 3)
{
	is($mine->query(q{
		SAVEPOINT s;
		INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.nothing', g FROM generate_series(1, 400) g;
		SELECT djactor.drain()}), 400, 'what one transaction drains again and again it claims once');
}
$mine->query('COMMIT');
for (1 .. 3)
{
	is($mine->query(q{
		BEGIN;
		INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.nothing', g FROM generate_series(1, 400) g;
		SELECT djactor.drain()}), 400, '... and gives back at its end');
	$mine->query('ROLLBACK');
}
is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$mine->quit;
$node->stop('immediate');
done_testing();
