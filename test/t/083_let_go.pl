# A batch ends as soon as anybody waits for what it has locked (contract 31).
#
# One worker, whose batches end neither by size nor by time, has mail for seconds.  Who wants a row that its
# turns write, an advisory lock that they take for the transaction, or to change a table that they write to, gets it after
# the turn that runs, while there is still mail.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('letgo', 'djactor.max_workers' => 1, 'djactor.poll_interval' => '1h', 'djactor.batch_time' => '60s',
	'djactor.batch_size' => 1000, fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE item (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (fillfactor = 20);
	CREATE TABLE altered (actor_key text);
	INSERT INTO item SELECT generate_series(1, 3);
	CREATE SEQUENCE begun;
	-- turns that begin while somebody waits
	CREATE TABLE late (round int, xact xid8 DEFAULT pg_current_xact_id());
	CREATE FUNCTION step(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM nextval('begun');
		IF EXISTS (SELECT FROM pg_locks WHERE NOT granted) THEN
			INSERT INTO late VALUES ((message->>'sender')::int);
		END IF;
		CASE message->>'what'
			WHEN 'row' THEN UPDATE item SET n = n + 1 WHERE id = 1;
			WHEN 'lock' THEN PERFORM pg_advisory_xact_lock_shared(4713);
			WHEN 'table' THEN INSERT INTO altered (actor_key) VALUES ((djactor.self()).actor_key);
			WHEN 'key' THEN PERFORM FROM item WHERE id = 2 FOR KEY SHARE;
		END CASE;
		PERFORM pg_sleep(0.003);
		RETURN work(state, message);
	END $$});

my $web = session($node, 'app', 'app');
my $round = 0;
my %statement = (
	row => 'UPDATE item SET n = n + 1000 WHERE id = 1',
	lock => 'SELECT pg_advisory_xact_lock(4713)',
	table => 'ALTER TABLE altered ADD COLUMN x int',
	key => 'DELETE FROM item WHERE id = 2');

for my $what (qw(row lock table key))
{
	my $type = "t.$what";

	$round++;
	as_role($node, 'app', 'app', qq{
		SELECT djactor.define_actor_type('$type', 'public.step', max_attempts => 1);
		SELECT setval('begun', 1, false);
		SELECT post($round, 1, 1000, '$type', 100, '{"what": "$what"}')});
	ok(wait_until('turns', sub { $node->safe_psql('app', 'SELECT last_value FROM begun') >= 30 }), "$what: a batch is under way");
	$web->start($statement{$what});
	ok(wait_until('the lock', sub { $web->finished }, 30), "... $statement{$what} comes to its end");
	$web->finish;
	is($web->{err}, '', '... without an error');
	cmp_ok($node->safe_psql('app', 'SELECT count(*) FROM djactor.message'), '>', 0, '... while there is mail');
	ok(wait_drained($node, 'app'), '... which is handled');
	# who comes after the worker's look is seen by its next one
	cmp_ok($node->safe_psql('app', "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM late WHERE round = $round GROUP BY xact) x"),
		'<=', 1, '... no batch has begun more than one turn while somebody waited');
	is($node->safe_psql('app', "SELECT sum(turns), sum(failures) FROM djactor.actor WHERE actor_type = '$type'"), '1000|0', '... and none of it has failed');
}
is($node->safe_psql('app', 'SELECT n FROM item WHERE id = 1'), 2000, 'no update is lost');
$web->quit;
check_ledger($node, 'app');
$node->stop;
done_testing();
