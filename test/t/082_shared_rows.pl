# Handlers of many actors that write the same few rows (contract 31).
#
# With two and with four workers, and somebody outside who writes them too, everything is handled exactly once, at no attempt's cost.
# The type's batches get smaller, or its workers fewer, which djactor.stat shows, and are as before once the rows are
# nobody else's.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('shared', 'djactor.poll_interval' => '1h', 'djactor.batch_size' => 50, fsync => 'off');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE product (id int PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (fillfactor = 20);
	INSERT INTO product SELECT generate_series(1, 20);
	CREATE FUNCTION sell(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		item int := 1 + floor(random() * 20);
	BEGIN
		IF NOT message ? 'calm' THEN
			UPDATE product SET n = n + 1 WHERE id = item;
		END IF;
		RETURN work(state, message);
	END $$});

for my $workers (2, 4)
{
	my $type = "t.sell$workers";
	my $seq = 1;
	my $calm = 1;
	my ($conflicts, $limited);
	my $stat = "FROM djactor.stat WHERE actor_type = '$type'";

	$node->append_conf('postgresql.conf', "djactor.max_workers = $workers\n");
	$node->restart;
	as_role($node, 'app', 'app', qq{SELECT djactor.define_actor_type('$type', 'public.sell', max_attempts => 1)});

	# as long as it takes, and some more
	wait_until('limits', sub {
		as_role($node, 'app', 'app', "SELECT post($workers, $seq, 1000, '$type', 200)");
		$seq += 1000;
		$limited ||= $node->safe_psql('app', "SELECT batch_limit || ' turns' $stat AND batch_limit > 0 UNION ALL SELECT worker_limit || ' workers' $stat AND worker_limit > 0");
		return $limited && $seq > 6000;
	});
	ok($limited, "$workers workers: the limit of the type is shown while it is contended");
	note($limited // 'none');
	ok(wait_drained($node, 'app'), '... all is handled');
	cmp_ok($node->safe_psql('app', "SELECT conflicts $stat"), '>', 0, '... conflicts are counted');
	is($node->safe_psql('app', "SELECT sum(failures), sum(turns) FROM djactor.actor WHERE actor_type = '$type'"), '0|' . ($seq - 1), '... exactly once each, and no attempt was used up');
	is($node->safe_psql('app', "SELECT sum(n) FROM product"), $seq - 1, '... what they write is written once');
	is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, '... and nothing was given up');

	ok(wait_until('no limits', sub {
		as_role($node, 'app', 'app', qq{SELECT post(10 + $workers, $calm, 200, '$type', 200, '{"calm": true}')});
		$calm += 200;
		return $node->safe_psql('app', "SELECT batch_limit IS NULL AND worker_limit IS NULL $stat") eq 't';
	}), '... when it is quiet again the limits go');
	ok(wait_drained($node, 'app'), '... all is handled');
	as_role($node, 'app', 'app', 'UPDATE product SET n = 0');
}
check_ledger($node, 'app');
is(log_count($node, qr/deadlock detected/), 0, 'no deadlock is worth a line in the log');
$node->stop;
done_testing();
