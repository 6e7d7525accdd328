# The library lives in the server's processes, among their symbols and those of other extensions.  All functions and variables
# of its own, those that no other file sees too, bear its prefix: so none can clash with what a header of a later server declares.
# And what differs between those servers is in one file.

use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my %stray;
my $functions = 0;

for my $file (glob "$FindBin::RealBin/../../src/{,*/}*.[ch]")
{
	my $code = slurp_file($file) =~ s{/\*.*?\*/}{}gsr;

	# functions begin a line; of variables there is one to a line
	for my $name ($code =~ /^(\w+)\(/gm, $code =~ /^(?:static|extern) [\w \t*]+?\b(\w+)(?:\[[^\]]*\])*(?: =.*|;)$/gm)
	{
		$functions++;
		$stray{$name} = $file unless $name =~ /^(?:dja_|_PG_init$|PG_FUNCTION_INFO_V1$|DJA_MODULE_MAGIC$)/;
	}
}
cmp_ok($functions, '>', 500, 'there are functions');
is(join(' ', map { "$_ in $stray{$_}" } sort keys %stray), '', 'each name begins with dja_');

is(join(' ', grep { !m{/compat\.h$} && slurp_file($_) =~ /\bPG_(?:VERSION_NUM|MAJORVERSION)/ } glob "$FindBin::RealBin/../../src/{,*/}*.[ch]"), '',
	'what differs between versions of the server is in compat.h');

chomp(my $folder = `pg_config --pkglibdir`);
my @exported = map { /^\S+ [A-Z] (\w+)$/ ? $1 : () } `nm --dynamic --defined-only $folder/djactor.so`;
cmp_ok(scalar @exported, '>', 50, 'the library exports functions');
is(join(' ', grep { !/^(?:(?:pg_finfo_)?dja_|_PG_init$|Pg_magic_func$)/ } @exported), '', '... with names of that kind, and no others');
done_testing();
