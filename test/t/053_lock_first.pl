# Commands for which the server locks a table or an index before it asks whether the user has any right to it.
#
# A reader's transaction stays open, stranger may only connect: she is told so at once, for had she to wait for the reader,
# all who send and all workers would wait for her.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use Test::More;

my $node = new_server('first', 'djactor.max_workers' => 2, 'djactor.poll_interval' => '1h', fsync => 'off');

new_app($node, 'app', 'owner');
$node->safe_psql('app', q{CREATE ROLE stranger LOGIN});

my $reader = session($node, 'app');
$reader->query('BEGIN; SELECT count(*) FROM djactor.message WHERE id = 1');

my $stranger = session($node, 'app', 'stranger');
$stranger->query(q{
	CREATE TEMP TABLE p (a int) PARTITION BY LIST (a);
	CREATE INDEX pi ON p (a);
	CREATE TEMP TABLE r (a int) PARTITION BY RANGE (a)});

# the statement of a session is refused, without waiting for anybody
sub refused
{
	my ($name) = @_;
	my $waits = '';

	wait_until('an end', sub {
		$stranger->finished || ($waits = $node->safe_psql('app', q{
			SELECT string_agg(mode || ' on ' || relation::regclass, ', ') FROM pg_locks WHERE NOT granted AND relation IS NOT NULL})) });
	is($waits, '', $name);
	$reader->query('ROLLBACK') if $waits;
	$stranger->finish;
	like($stranger->{err}, qr/(?:ERROR|WARNING): /, '... and she is told why');
	$reader->query('BEGIN; SELECT count(*) FROM djactor.message WHERE id = 1') if $waits;
}

for my $statement (
	'CREATE TEMP TABLE x PARTITION OF djactor.message DEFAULT',
	'CREATE TEMP TABLE x PARTITION OF djactor.actor FOR VALUES IN (1)',
	'CREATE FOREIGN TABLE pg_temp.x PARTITION OF djactor.message DEFAULT SERVER none',
	'ALTER INDEX pi ATTACH PARTITION djactor.message_pkey',
	'ALTER TABLE p ATTACH PARTITION djactor.message DEFAULT',
	'ALTER TABLE p DETACH PARTITION djactor.message',
	'ALTER MATERIALIZED VIEW djactor.message DEPENDS ON EXTENSION plpgsql',
	'ALTER MATERIALIZED VIEW djactor.message NO DEPENDS ON EXTENSION plpgsql',
	'ALTER INDEX djactor.message_pkey DEPENDS ON EXTENSION plpgsql',
	'CREATE STATISTICS pg_temp.s ON id, actor_type FROM djactor.message',
	'COMMENT ON TABLE djactor.message IS $$mine$$',
	'COMMENT ON INDEX djactor.message_pkey IS $$mine$$',
	'CREATE TABLE pg_temp.i () INHERITS (djactor.message)',
	'CREATE PUBLICATION mine FOR TABLE djactor.message',
	'ALTER TRIGGER sent ON djactor.message DEPENDS ON EXTENSION plpgsql',
	'CREATE RULE r AS ON INSERT TO djactor.message DO NOTHING',
	'CREATE TRIGGER t AFTER INSERT ON djactor.message EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	'DROP TRIGGER sent ON djactor.message',
	'ALTER TABLE p INHERIT djactor.message',
	'REINDEX TABLE djactor.message',
	'REINDEX INDEX djactor.message_pkey',
	'CLUSTER djactor.message USING message_pkey',
	'VACUUM FULL djactor.message',
	'ANALYZE djactor.message',
	'REFRESH MATERIALIZED VIEW djactor.message',
	'DROP INDEX djactor.message_pkey',
	'DROP TABLE djactor.message',
	'DROP VIEW djactor.mailbox',
	'DROP SCHEMA djactor',
	'DROP MATERIALIZED VIEW djactor.message',
	'DROP SEQUENCE djactor.message_id_seq',
	'ALTER TYPE djactor.message RENAME ATTRIBUTE id TO x',
	'ALTER TYPE djactor.message ADD ATTRIBUTE x int',
	'ALTER TABLE djactor.message SET SCHEMA pg_temp',
	'ALTER INDEX djactor.message_pkey SET (fillfactor = 50)',
	'ALTER VIEW djactor.message RENAME TO x',
	'ALTER INDEX djactor.message_pkey RENAME TO x',
	'ALTER SEQUENCE djactor.message_id_seq OWNED BY NONE',
	'CREATE POLICY p ON djactor.message',
	'CREATE INDEX ON djactor.message (id)',
	'TRUNCATE djactor.message',
	'LOCK TABLE djactor.message',
	'SECURITY LABEL ON TABLE djactor.message IS $$x$$')
{
	$stranger->start($statement);
	refused("stranger: $statement: refused at once");
}

# a name that means another table, until that is gone
$node->safe_psql('app', 'CREATE SCHEMA stranger AUTHORIZATION stranger');
my $other = session($node, 'app', 'stranger');
$stranger->query('SET search_path = stranger, djactor');
for my $statement ('CREATE RULE r AS ON INSERT TO message DO NOTHING', 'ALTER TABLE p ATTACH PARTITION message DEFAULT')
{
	$other->query('CREATE TABLE stranger.message (a int)');
	$other->query('BEGIN; DROP TABLE stranger.message');
	$stranger->start($statement);
	ok(wait_until('a lock', sub { $node->safe_psql('app', q{SELECT 1 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL}) }),
		"stranger: $statement: another table of that name is being dropped");
	$other->query('COMMIT');
	refused('... refused at once');
}
$_->quit for $reader, $stranger, $other;
$node->stop;
done_testing();
