# The replica identity of djactor.actor is all of the row: with wal_level = logical each turn logs the old state, too, and a subscriber
# before 16 reads the whole table for each. Who has that may do what docs/operations.md says: no identity where nobody publishes the table, or
# a unique index, at the publisher or at the subscriber.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('identity', Init => [ allows_streaming => 'logical' ], 'djactor.max_workers' => 1, fsync => 'off', autovacuum => 'off', full_page_writes => 'off');
my $other = new_server('reader', Init => [ allows_streaming => 'logical' ], 'djactor.max_workers' => 1, fsync => 'off', autovacuum => 'off');
my $index = 'CREATE UNIQUE INDEX identity ON djactor.actor (id); ALTER TABLE djactor.actor REPLICA IDENTITY USING INDEX identity';
my %wal;

new_app($node, 'app');
new_database($other, 'app');
as_role($node, 'app', 'app', q{
	CREATE FUNCTION grow(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS
		$$ SELECT CASE WHEN state ? 'long' THEN state
			ELSE jsonb_build_object('long', (SELECT string_agg(encode(sha256(g::text::bytea), 'base64'), '') FROM generate_series(1, 40) g))
			END || jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1) $$;
	SELECT djactor.define_actor_type('t.grow', 'public.grow')});

# Bytes of WAL of a turn, 200 actors having one each.
sub wal
{
	my ($bytes, $from);

	as_role($node, 'app', 'app', q{SELECT djactor.pause('t.grow'); SELECT djactor.send('t.grow', 'k' || g) FROM generate_series(1, 200) g});
	$node->safe_psql('app', 'CHECKPOINT');
	$from = $node->safe_psql('app', 'SELECT pg_current_wal_insert_lsn()');
	as_role($node, 'app', 'app', q{SELECT djactor.resume('t.grow')});
	ok(wait_drained($node, 'app'), 'mail is handled');
	return $node->safe_psql('app', "SELECT ((pg_current_wal_insert_lsn() - '$from') / 200)::int");
}

wal(); # makes the actors
$wal{full} = wal();
$node->safe_psql('app', 'ALTER TABLE djactor.actor REPLICA IDENTITY NOTHING');
$wal{nothing} = wal();
$node->safe_psql('app', $index);
$wal{index} = wal();
note("bytes of WAL a turn: " . join ', ', map { "$_ $wal{$_}" } sort keys %wal);
cmp_ok($wal{full}, '>', $wal{nothing} + 1500, 'the old state is logged, too');
cmp_ok($wal{index}, '<', $wal{nothing} + 300, '... but not with a unique index');

# Without an identity nobody may publish it.
$node->safe_psql('app', 'ALTER TABLE djactor.actor REPLICA IDENTITY NOTHING; CREATE PUBLICATION everything FOR ALL TABLES');
as_role($node, 'app', 'app', q{SELECT post(1, 1, 3, 't.work', 3)});
my $hint = qr/a publication of table djactor\.actor keeps .*\n.*no replica identity.*\n.*HINT:  Use ALTER TABLE djactor\.actor REPLICA IDENTITY FULL\./;
ok(wait_until('the log', sub { log_since($node) =~ $hint }), 'no identity, and published: mail waits, with a hint');
$node->safe_psql('app', 'ALTER TABLE djactor.actor REPLICA IDENTITY FULL');
ok(wait_drained($node, 'app'), '... goes on with one');

# A subscriber finds the actor by an identity of its own, whatever the publisher's is.
$node->safe_psql('app', 'CREATE PUBLICATION actors FOR TABLE djactor.actor, djactor.actor_identity, djactor.message');
$other->safe_psql('app', $index);
$other->safe_psql('app', q{CREATE SUBSCRIPTION reading CONNECTION '} . $node->connstr . q{ dbname=app' PUBLICATION actors});
$other->wait_for_subscription_sync($node, 'reading', 'app');
my $found = q{SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'identity'};
my $by_index = $other->safe_psql('app', $found);
wal();
$node->safe_psql('app', q{UPDATE djactor.actor SET state = state || '{"by": "hand"}' WHERE actor_key = 'k1'});
as_role($node, 'app', 'app', q{SELECT djactor.stop_actor('t.grow', 'k2')});
$node->wait_for_catchup('reading');
my $content = q{SELECT count(*), md5(string_agg(a::text, ',' ORDER BY id)) FROM djactor.actor a};
is($other->safe_psql('app', $content), $node->safe_psql('app', $content), 'a subscriber has what the publisher has');
ok(wait_until('its statistics', sub { $other->safe_psql('app', $found) >= $by_index + 200 }), '... found by an index of its own');
is($node->safe_psql('app', 'SELECT count(*) FROM djactor.dead_letter'), 0, 'no message was given up');
is(log_count($other, qr/ERROR|PANIC|TRAP:|terminated by signal/), 0, 'nothing went wrong there');
$_->stop for $other, $node;
done_testing();
