# Fresh or upgraded, the extensions are the same: each version that was released (test/upgrade), brought to this one by each
# way that the upgrade scripts in sql/ offer, has the catalog of a fresh installation. Columns have the same numbers, since
# the library reads rows by these; functions, defaults, comments, rights and what is dumped are the same.
#
# A released version without a way to this one is a failure, and so is a script that was changed after its release.
#
# What the comparison finds is shown with versions that exist here only: mistakes that upgrade scripts are known for.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = abs_path("$FindBin::RealBin/../..");
my ($root, %dir) = copy_server();
my $extensions = "$root$dir{sharedir}/extension";
my ($this) = slurp_file("$extensions/djactor.control") =~ /^default_version = '([^']*)'/m or die 'no version';

# versions are installed and upgraded here, none runs
my $node = new_server('paths', Install => dirname("$root$dir{bindir}"), shared_preload_libraries => '');
my $databases = 0;

# catalog($extension, $version, @updates): of a database that gets this version, then these
sub catalog
{
	my ($extension, @versions) = @_;
	my $database = 'd' . ++$databases;
	my $first = shift @versions;
	my ($dump, $err);

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION djactor; CREATE EXTENSION plpython3u') if $extension eq 'djactor_python';
	$node->safe_psql($database, join ';', "CREATE EXTENSION $extension VERSION '$first'",
		map { "ALTER EXTENSION $extension UPDATE TO '$_'" } @versions);
	IPC::Run::run([ "$root$dir{bindir}/pg_dump", '-h', $node->host, '-p', $node->port, '--binary-upgrade', '--schema-only', $database ],
		'>', \$dump, '2>', \$err) or die "pg_dump: $err";
	# what is numbered anew in each database, what rows lack that are older than a column, and a token of each run
	$dump =~ s/^(SELECT pg_catalog\.binary_upgrade_|-- For binary upgrade|-- set missing value|\\(un)?restrict |$).*\n//mg;
	$dump =~ s/^(SET relfrozenxid = |WHERE oid = |'\d+'::pg_catalog\.).*\n//mg;
	$dump .= $node->safe_psql($database, qq{
		SELECT 'dumped', c.oid::regclass, condition FROM pg_extension, unnest(extconfig, extcondition) AS dumped (oid, condition)
			JOIN pg_class c USING (oid) WHERE extname = '$extension' ORDER BY 2;
		SELECT 'column', attrelid::regclass, attnum, attname, attisdropped FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
			WHERE relnamespace = 'djactor'::regnamespace AND relkind = 'r' AND attnum > 0 ORDER BY 2, 3});
	$node->safe_psql('postgres', "DROP DATABASE $database");
	return $dump;
}

# ways($extension, $from, $to): each way there is by the scripts, as a list of versions
sub ways
{
	my ($extension, $from, $to, @seen) = @_;
	my @ways;

	return [] if $from eq $to;
	for my $script (glob "$extensions/$extension--$from--*.sql")
	{
		my ($next) = basename($script) =~ /--\Q$from\E--(.+)\.sql$/;
		next if grep { $_ eq $next } @seen;
		push @ways, map { [ $next, @$_ ] } ways($extension, $next, $to, @seen, $from);
	}
	return @ways;
}

# first_difference($one, $other): a line that only one of them has; empty, if there is none
sub first_difference
{
	my ($one, $other) = map { [ split /\n/ ] } @_;

	for my $i (0 .. ($#$one > $#$other ? $#$one : $#$other))
	{
		my ($was, $is) = ($one->[$i] // '(end)', $other->[$i] // '(end)');
		return "$was | $is" if $was ne $is;
	}
	return '';
}

for my $extension ('djactor', 'djactor_python')
{
	next if $extension eq 'djactor_python' && !has_extension('plpython3u');
	my $fresh = catalog($extension, $this);
	my $released = 0;

	like($fresh, qr/^CREATE TABLE djactor\.\w+.*^COMMENT ON.*^dumped/ms, "$extension: tables, comments and what is dumped are compared");
	is(first_difference($fresh, catalog($extension, $this)), '', "$extension: two fresh installations are the same");
	for my $script (glob "$top/test/upgrade/$extension--*.sql")
	{
		my ($version) = basename($script) =~ /--(.+)\.sql$/;

		$released++;
		if ($version eq $this)
		{
			is(slurp_file($script), slurp_file("$extensions/$extension--$this.sql"), "$extension $version is released, and did not change");
			next;
		}
		put_file("$extensions/$extension--$version.sql", slurp_file($script));
		my @ways = ways($extension, $version, $this);
		ok(scalar @ways, "$extension $version: there is a way to $this");
		for my $way (@ways)
		{
			is(first_difference($fresh, catalog($extension, $version, @$way)), '', join ' to ', "$extension $version", @$way);
		}
	}
	my %from = map { basename($_) =~ /--(.+)--/ ? ($1 => 1) : () } glob "$top/sql/$extension--*--*.sql";
	ok(-f "$top/test/upgrade/$extension--$_.sql", "$extension $_, which can be upgraded, is in test/upgrade") for sort keys %from;
	note("$extension: $released released versions");
}

#
# Versions that are invented: first -> second -> third, and at once
#
my $script = slurp_file("$extensions/djactor--$this.sql");
my $table = q{
	CREATE TABLE djactor.news (n int);
	COMMENT ON TABLE djactor.news IS 'news';
	SELECT pg_catalog.pg_extension_config_dump('djactor.news', '');};
my $function = q{
	CREATE FUNCTION djactor.tell(n int DEFAULT 1) RETURNS int LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS 'SELECT n';
	REVOKE ALL ON FUNCTION djactor.tell(int) FROM PUBLIC;};
my $column = q{
	ALTER TABLE djactor.news ADD at timestamptz DEFAULT now();};

put_file("$extensions/djactor--first.sql", $script);
put_file("$extensions/djactor--second.sql", $script . $table);
put_file("$extensions/djactor--third.sql", $script . ($table =~ s/n int/n int, at timestamptz DEFAULT now()/r) . $function);
put_file("$extensions/djactor--first--second.sql", $table);
put_file("$extensions/djactor--second--third.sql", $column . $function);
put_file("$extensions/djactor--first--third.sql", $table . $column . $function);

my $fresh = catalog('djactor', 'third');
my @ways = ways('djactor', 'first', 'third');
is(join(', ', sort map { join '-', @$_ } @ways), 'second-third, third', 'all ways are found');
is(first_difference($fresh, catalog('djactor', 'first', @$_)), '', 'an upgrade that is right, by ' . join('-', @$_)) for @ways;
is(scalar ways('djactor', 'third', 'first'), 0, '... and none where there is none');

my %mistakes = (
	'a comment that is missing' => [ qr/TABLE news; Type: COMMENT/, s => qr/COMMENT[^;]*;/, '' ],
	'a right that is left to PUBLIC' => [ qr/FUNCTION tell.*Type: ACL/, s => qr/REVOKE[^;]*;/, '' ],
	'a table that is not dumped' => [ qr/dumped/, s => qr/SELECT pg_catalog[^;]*;/, '' ],
	'a default of before' => [ qr/DEFAULT 2/, s => qr/DEFAULT 1/, 'DEFAULT 2' ],
	'a function body of before' => [ qr/SELECT n/, s => qr/'SELECT n'/, q{'SELECT n + 0'} ],
	'a function that is not protected' => [ qr/search_path/, s => qr/SET search_path = pg_catalog, pg_temp/, '' ],
	'a column at another place' => [ qr/\bat\b/, s => qr/\(n int\)/, '(at timestamptz DEFAULT now())', s => qr/ADD at[^;]*/, 'ADD n int' ],
	'a column that was dropped' => [ qr/dropped|\bn\b/, s => qr/\(n int\)/, '(old int)', s => qr/(ALTER TABLE djactor\.news) ADD/, 'ALTER TABLE djactor.news DROP old, ADD n int, ADD' ],
	'a table that does not belong to the extension' => [ qr/ALTER EXTENSION djactor ADD TABLE/, s => qr/(\sSELECT pg_catalog)/, "\nALTER EXTENSION djactor DROP TABLE djactor.news; SELECT pg_catalog" ]);
for my $mistake (sort keys %mistakes)
{
	my ($finds, @edits) = @{ $mistakes{$mistake} };
	my $upgrade = $table . $column . $function;

	while (my ($how, $from, $to) = splice @edits, 0, 3)
	{
		$upgrade =~ s/$from/$to/ or die "$mistake: no $from";
	}
	$upgrade =~ s/SELECT pg_catalog[^;]*;// if $mistake =~ /belong/;
	put_file("$extensions/djactor--first--third.sql", $upgrade);
	like(first_difference($fresh, catalog('djactor', 'first', 'third')), $finds, "$mistake is found");
}

$node->stop;
done_testing();
