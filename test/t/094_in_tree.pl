# A PostgreSQL that was configured in its source tree, as Homebrew and most who build it do: autoconf takes the VPATH lines
# out of its Makefile.global then. It compiles and installs djactor from another directory all the same, with and without
# --enable-depend.

use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = abs_path("$FindBin::RealBin/../..");
my $pg_config = $ENV{PG_CONFIG};
my ($version) = slurp_file("$top/django/djactor/__init__.py") =~ /^__version__ = "(\d+\.\d+)/m or die 'no version';

chomp(my $pgxs = `'$pg_config' --pgxs`);
my ($there) = $pgxs =~ m{^(.*)/src/makefiles/pgxs\.mk$} or die "pgxs: $pgxs";

for my $depend ('', 'yes')
{
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $name = $depend ? 'with --enable-depend' : 'without it';
	my $makefile;
	my @make = ('make', '-j2', '-C', "$dir/obj", '-f', "$top/Makefile", "PG_CONFIG=$dir/pg_config", 'COPT=-O0 -U_FORTIFY_SOURCE', "DESTDIR=$dir/root");
	my $objects;
	my @sources = glob "$top/src/{,*/}*.c";

	mkdir "$dir/obj";
	system('cp', '-RL', $there, "$dir/pgxs") == 0 or die 'cp';
	system('chmod', '-R', 'u+w', "$dir/pgxs") == 0 or die 'chmod';
	$makefile = slurp_file("$dir/pgxs/src/Makefile.global");
	# The server under test may be one of those itself.
	$makefile =~ s/^vpath_build = (.*)/vpath_build = no/m or die 'no vpath_build';
	$1 eq 'no' or $makefile =~ s/^[ \t]*VPATH[ \t]*=.*\n//mg or die 'no VPATH';
	$makefile =~ s/^autodepend[ \t]*=.*/autodepend = $depend/m or die 'no autodepend';
	unlink "$dir/pgxs/src/Makefile.global";
	append_to_file("$dir/pgxs/src/Makefile.global", $makefile);
	append_to_file("$dir/pg_config",
		qq{#!/bin/sh\nif [ "\$1" = --pgxs ]; then echo '$dir/pgxs/src/makefiles/pgxs.mk'; else exec '$pg_config' "\$@"; fi\n});
	chmod 0755, "$dir/pg_config";

	command_ok([ @make, 'all' ], "make in a server's in-tree build, $name");
	$objects = () = glob "$dir/obj/src/{,*/}*.o";
	is($objects, scalar @sources, '... compiles each file');
	command_ok([ @make, 'install' ], '... make install');
	chomp(my $lib = `'$pg_config' --pkglibdir`);
	chomp(my $share = `'$pg_config' --sharedir`);
	ok(-s "$dir/root$lib/djactor.so", '... brings the library');
	ok(-s "$dir/root$share/extension/$_", "... $_") for 'djactor.control', "djactor--$version.sql", 'djactor_python.control';
}
done_testing();
