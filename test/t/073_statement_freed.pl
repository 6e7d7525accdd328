# A command may free itself: a procedure that was called by a prepared statement deallocates that and rolls back,
# and its plan is gone before it returns.  djactor, which sees all utility commands of a server that merely preloads it,
# must not read it afterwards: else a role without any rights says what stands there, and ends the server.
#
# What the procedure puts there are arrays, since a variable of that kind has a memory context of the kind and
# size that plans have.  All their elements look like the beginning of ALTER DATABASE, and like a
# pointer to nowhere.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

# node_tag($name): the number of a kind of node, in the server under test.
sub node_tag
{
	my ($name) = @_;
	my ($folder) = run_command([ 'pg_config', '--includedir-server' ]);
	my $tags = "$folder/nodes/nodetags.h";

	return slurp_file($tags) =~ /\bT_$name = (\d+)/ ? $1 : undef if -f $tags;

	# up to 15 most of them are not numbered
	my ($enum) = slurp_file("$folder/nodes/nodes.h") =~ m{typedef enum NodeTag\s*\{(.*?)\}}s;
	my $next = 0;
	my %number;

	for my $tag ($enum =~ s{/\*.*?\*/}{}gsr =~ /(\w+(?:\s*=\s*\d+)?)/g)
	{
		$next = $1 if $tag =~ s/\s*=\s*(\d+)//;
		$number{$tag} = $next++;
	}
	return $number{"T_$name"};
}

my $tag = node_tag('AlterDatabaseStmt');
cmp_ok($tag, '>', 0, 'the server has a number for ALTER DATABASE');

my $node = new_server('freed');

new_database($node, 'app');
$node->safe_psql('postgres', 'CREATE ROLE guest LOGIN');

# call($database, $ends): a role without any rights calls a procedure that ends its own statement so, by the
# extended protocol.
sub call
{
	my ($database, $ends) = @_;
	my $script = $node->basedir . '/script.sql';
	my $element = (1 << 62) + $tag;
	my @arrays = map { "a$_" } 1 .. 30;
	my $declare = join('; ', map { "$_ bigint[]" } @arrays);
	my $fill = join('; ', map { "$_ := array_fill($element, ARRAY[29])" } @arrays);

	# the second time nothing else needs a memory context
	unlink $script;
	append_to_file($script, qq{
		CREATE PROCEDURE pg_temp.ends_its_statement() LANGUAGE plpgsql AS \$\$
		DECLARE
			$declare;
		BEGIN
			FOR i IN 1 .. 2 LOOP
				IF i = 2 THEN
					$ends;
				END IF;
				$fill;
			END LOOP;
		END \$\$;
		CALL pg_temp.ends_its_statement();
	});
	$node->command_like([ 'pgbench', '-n', '-M', 'prepared', '-t', 1, '-f', $script,
		'-h', $node->host, '-p', $node->port, '-U', 'guest', $database ],
		qr{transactions actually processed: 1/1}, "$database: $ends");
	wait_until('the server', sub { $node->safe_psql($database, 'SELECT 1') });
}

for my $database ('postgres', 'app')
{
	call($database, "EXECUTE 'DEALLOCATE ALL'; ROLLBACK");
	call($database, "EXECUTE 'DEALLOCATE ALL'; COMMIT");
	call($database, "EXECUTE 'DEALLOCATE ALL'; COMMIT; ROLLBACK");
}
is(log_count($node, qr/terminated by signal|PANIC|TRAP:/), 0, 'nothing crashed');
$node->stop;
done_testing();
