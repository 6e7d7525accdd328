# What is kept for a time goes after it, and not before: journal rows by the interval of their type, dead letters,
# replies and idempotency keys by the settings. More than one chunk of each.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $rows = 2500;
my $node = new_server('retention',
	'djactor.dead_letter_retention' => '1 h',
	'djactor.idempotency_retention' => '1 h',
	'max_prepared_transactions' => 1);

new_app($node, 'app');
$node->safe_psql('app', q{
	CREATE FUNCTION nothing(state jsonb, message jsonb) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
	SELECT djactor.define_actor_type('t.short', 'nothing', journal => '1 h'), djactor.define_actor_type('t.long', 'nothing', journal => '100 d'),
		djactor.define_actor_type('t.none', 'nothing')});

# Rows that are old already: a superuser may insert them.
my $common = q{actor_key, payload, priority, wants_reply, trace_id, kind, attempts, crashes, redrives, sent_at};
my $values = q{'k', '{}', 0, false, gen_random_uuid(), 'user', 0, 0, 0, now()};
$node->safe_psql('app', qq{
	INSERT INTO djactor.journal (id, actor_type, $common, started_at, finished_at, outcome, worker_pid)
		SELECT i + 100000 * n, type, $values, at, at, 'handled', 1
		FROM generate_series(1, $rows) i,
			(VALUES (1, 't.short', now() - interval '2 h'), (2, 't.short', now()), (3, 't.long', now() - interval '2 h'), (4, 't.none', now() - interval '2 h')) v (n, type, at);
	INSERT INTO djactor.dead_letter (id, actor_type, $common, reason, failed_at)
		SELECT i + 100000 * n, 't.short', $values, 'failed', at
		FROM generate_series(1, $rows) i, (VALUES (1, now() - interval '2 h'), (2, now())) v (n, at);
	INSERT INTO djactor.reply (message_id, created_at, expires_at)
		SELECT i + 100000 * n, now(), at + i * interval '1 ms'
		FROM generate_series(1, $rows) i, (VALUES (1, now() - interval '2 h'), (2, now() + interval '1 h')) v (n, at);
	INSERT INTO djactor.idempotency (actor_type, actor_key, idempotency_key, message_id, answered, completed_at)
		SELECT 't.short', 'k', i || ' ' || n, 1, true, at
		FROM generate_series(1, $rows) i, (VALUES (1, now() - interval '2 h'), (2, now())) v (n, at)});

# Somebody has one of the old rows, and keeps it over the restart. A worker purges when it starts.
$node->safe_psql('app', q{BEGIN; SELECT FROM djactor.dead_letter WHERE id = 100001 FOR UPDATE; PREPARE TRANSACTION 'keeps'});
$node->restart;
$node->safe_psql('app', q{SELECT djactor.send('t.none', 'wake')});

sub left
{
	return $node->safe_psql('app', q{
		SELECT string_agg(what || ' ' || n, ', ' ORDER BY what COLLATE "C") FROM (
			SELECT 'journal ' || actor_type || CASE WHEN finished_at < now() - interval '1 h' THEN ' old' ELSE ' new' END AS what, count(*) AS n FROM djactor.journal GROUP BY 1
			UNION ALL SELECT 'dead' || CASE WHEN failed_at < now() - interval '1 h' THEN ' old' ELSE ' new' END, count(*) FROM djactor.dead_letter GROUP BY 1
			UNION ALL SELECT 'reply' || CASE WHEN expires_at < now() THEN ' old' ELSE ' new' END, count(*) FROM djactor.reply GROUP BY 1
			UNION ALL SELECT 'key' || CASE WHEN completed_at < now() - interval '1 h' THEN ' old' ELSE ' new' END, count(*) FROM djactor.idempotency GROUP BY 1) x});
}

ok(wait_until('old rows are gone', sub { left() !~ /(reply|key|t\.short) old|dead old (?!1,)/ }), 'what is old is deleted, but for a row that somebody keeps');
is(left(), "dead new $rows, dead old 1, journal t.long old $rows, journal t.none old $rows, "
	. "journal t.short new $rows, key new $rows, reply new $rows",
	'and nothing else goes; of a type that keeps no journal, what it kept stays');

$node->safe_psql('app', q{ROLLBACK PREPARED 'keeps'});
done_testing();
