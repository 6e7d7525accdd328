# Contract 27: messages that are inserted with their ids (OVERRIDING SYSTEM VALUE) come from a dump, and the database is held as a copy. That is said
# of the statement that inserts rows, and undone with it: not of what the session sends otherwise, before or after.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('given', 'djactor.max_workers' => 2);
my $id = 1000000;
my $seq = 0;

new_app($node, 'app');

# An INSERT that gives an id, or its text for a PREPARE.
sub given
{
	my ($type, $rows) = @_;

	$type //= 't.work';
	$rows //= 'true';
	$id++;
	$seq++;
	return qq{INSERT INTO djactor.message (id, actor_type, actor_key, payload) OVERRIDING SYSTEM VALUE SELECT $id, '$type', 'k', '{"sender": 1, "seq": $seq}' WHERE $rows};
}

my $sends = q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.paused', 'k')};
my $misspelt = q{INSERT INTO djactor.message (actor_type, actor_key) VALUES ('t.misspelt', 'k')};
my $held = 'SELECT djactor.held()';

# All in one session, each statement in a transaction of its own; the last one's result.
sub session_says
{
	my ($out, $err) = ('', '');

	$node->psql('app', join(";\n", @_), stdout => \$out, stderr => \$err, on_error_stop => 0);
	note($err) if $err;
	return (split /\n/, $out)[-1] . ($err =~ /actor type "t.misspelt" does not exist/ ? ' refused' : '');
}

define_work($node, 'app', 'app', 't.paused');
$node->safe_psql('app', q{SELECT djactor.pause('t.paused')});
$node->safe_psql('app', $sends);

#
# What has come to nothing
#
is(session_says('BEGIN', given(), 'ROLLBACK', 'DISCARD ALL', $sends, $misspelt, $held), 'f refused', 'rolled back');
is(session_says('BEGIN', 'SAVEPOINT s', given(), 'ROLLBACK TO s', $sends, 'COMMIT', $sends, $misspelt, $held), 'f refused', 'rolled back to a savepoint');
is(session_says(given('t.work', 'false'), $sends, $misspelt, $held), 'f refused', 'no row');
is(session_says('EXPLAIN ' . given(), $sends, $misspelt, $held), 'f refused', 'only explained');
is(session_says('PREPARE p AS ' . given(), $sends, $misspelt, $held), 'f refused', 'only prepared');
is(session_says('INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING SYSTEM VALUE VALUES (1, NULL, NULL)', $sends, $misspelt, $held), 'f refused', 'failed');

#
# What gives no id, although it names one
#
is(session_says(q{INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING USER VALUE VALUES (1, 't.paused', 'k')}, $sends, $misspelt, $held), 'f refused', 'overridden by the server');
is(session_says(q{INSERT INTO djactor.message (id, actor_type, actor_key) VALUES (DEFAULT, 't.paused', 'k'), (DEFAULT, 't.paused', 'l')}, $sends, $misspelt, $held), 'f refused', 'the default');
is(session_says(q{INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING SYSTEM VALUE VALUES (DEFAULT, 't.paused', 'k')}, $sends, $misspelt, $held), 'f refused', 'the default, overriding');

#
# What is a restore
#
my %restores = (
	'a statement' => [ given() ],
	'one before its type' => [ given('t.to_come') ],
	'in a transaction' => [ 'BEGIN', given(), given(), $sends, 'COMMIT' ],
	'in a savepoint' => [ 'BEGIN', given(), 'SAVEPOINT s', given(), 'ROLLBACK TO s', $sends, 'COMMIT' ],
	'after one that was rolled back' => [ 'BEGIN', 'SAVEPOINT s', given(), 'ROLLBACK TO s', given(), 'COMMIT' ],
	'a prepared one, whenever it is executed' => [ 'PREPARE p AS ' . given(), $sends, 'EXECUTE p' ],
	'in a function' => [ 'DO $do$ BEGIN EXECUTE $q$' . given() . '$q$; END $do$' ],
	'in a WITH' => [ 'WITH w AS (' . given() . ' RETURNING id) SELECT FROM w' ],
	'with RETURNING' => [ given() . ' RETURNING id' ],
	'with no trigger to tell' => [ 'ALTER TABLE djactor.message DISABLE TRIGGER ALL', given(), 'ALTER TABLE djactor.message ENABLE TRIGGER ALL' ]);

for my $how (sort keys %restores)
{
	is(session_says(@{ $restores{$how} }, $held), 't', "$how: held");
	is(session_says($misspelt, $held), 't refused', "$how: which makes no other type exist");
	$node->safe_psql('app', 'SELECT djactor.resume()');
	is(session_says($sends, $misspelt, $held), 'f refused', "$how: until resume()");
}

# the session that has restored is like any other
is(session_says(given(), 'SELECT djactor.resume()', $sends, $misspelt, $held), 'f refused', 'resumed by the session that has restored');

# a function whose plan is kept
$node->safe_psql('app', 'CREATE PROCEDURE restores(message_id bigint) LANGUAGE plpgsql AS $$
	BEGIN INSERT INTO djactor.message (id, actor_type, actor_key) OVERRIDING SYSTEM VALUE VALUES (message_id, $q$t.paused$q$, $q$k$q$); END $$');
is(session_says('CALL restores(9001)', 'SELECT djactor.resume()', 'CALL restores(9002)', $held), 't', 'by a plan that is kept: held again');
$node->safe_psql('app', 'SELECT djactor.resume()');

# many rows leave few marks
$node->safe_psql('app', 'DO $$ BEGIN FOR i IN 10001 .. 12000 LOOP CALL restores(i); END LOOP; END $$');
is($node->safe_psql('app', 'SELECT count(*) <= 2 FROM djactor.home'), 't', 'two thousand statements, one mark');
is($node->safe_psql('app', $held), 't', 'held');
is(log_count($node, qr/PANIC|TRAP:|terminated by signal/), 0, 'nothing crashed');

$node->stop;
done_testing();
