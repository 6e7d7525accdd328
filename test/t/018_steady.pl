# What keeps the pace steady: new versions of an actor stay on the page of the old one, so that they cost no index entries;
# and a backlog is handled about as it came, whatever the hashes of its keys.  How fast that is bench/ measures.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('steady', 'autovacuum' => 'off', 'djactor.max_workers' => 1);

new_app($node, 'app');
$node->safe_psql('app', q{
	CREATE TABLE seen (serial bigserial PRIMARY KEY, key text);
	CREATE FUNCTION note(state jsonb, message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen (key) VALUES ((djactor.self()).actor_key);
		RETURN jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1, 'filler', repeat('x', 100));
	END $$;
	SELECT djactor.define_actor_type('t.noting', 'note')});

# Many batches, one message for each actor in each.
for my $batch (1 .. 60)
{
	$node->safe_psql('app', q{
		INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.noting', i::text FROM generate_series(1, 200) i;
		SELECT djactor.wait_idle('60 s')});
}
is($node->safe_psql('app', q{SELECT count(*), min(turns), max(turns) FROM djactor.actor}), '200|60|60', 'each actor has had 60 turns');
$node->restart;    # the statistics are written
my ($updates, $hot) = split /\|/, $node->safe_psql('app', q{
	SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'djactor.actor'::regclass});
cmp_ok($updates, '>=', 200 * 59, 'their states were written each time');
cmp_ok($hot, '>=', 0.9 * $updates, 'and new versions nearly always found room on their page');

# A backlog for 800 actors.  The mailboxes that the worker claims while it finds the type paused come late; in the order of hashes
# about every second message would come before an earlier one.
$node->safe_psql('app', q{
	TRUNCATE seen;
	SELECT djactor.pause('t.noting');
	INSERT INTO djactor.message (actor_type, actor_key) SELECT 't.noting', i::text FROM generate_series(1, 800) i;
	SELECT pg_sleep(0.5);
	SELECT djactor.resume('t.noting');
	SELECT djactor.wait_idle('60 s')});
my ($handled, $inversions) = split /\|/, $node->safe_psql('app', q{
	SELECT count(*), count(*) FILTER (WHERE key < earlier)
	FROM (SELECT key::int AS key, lag(key::int) OVER (ORDER BY serial) AS earlier FROM seen) s});
is($handled, 800, 'the backlog of a resumed type is handled');
cmp_ok($inversions, '<=', 32, 'about in the order of its messages');

done_testing();
