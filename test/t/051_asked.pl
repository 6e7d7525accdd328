# Libraries that the server asks before it runs a function (sepgsql is one) are asked before each handler, too, though no SQL
# calls it: what they forbid does not run, and the message fails with their error. Upgrade handlers are functions as well.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DjactorTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $library = PostgreSQL::Test::Utils::tempdir_short() . '/asked.so';
chomp(my $headers = `pg_config --includedir-server`);

system('cc', '-shared', '-fPIC', '-isystem', $headers, '-o', $library, "$FindBin::RealBin/asked.c") == 0
  or die 'asked.c does not compile';

my $node = new_server('asked', shared_preload_libraries => "djactor, $library", 'djactor.poll_interval' => '1h');

new_app($node, 'app');
as_role($node, 'app', 'app', q{
	CREATE TABLE public.ran (what text);
	CREATE FUNCTION public.forbidden(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('handler'); SELECT $1$$;
	CREATE FUNCTION public.forbidden(state jsonb, from_version int) RETURNS jsonb LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('upgrade'); SELECT $1$$;
	CREATE FUNCTION public.allowed(state jsonb, message jsonb) RETURNS jsonb LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('allowed'); SELECT $1$$;
	SELECT djactor.define_actor_type('t.forbidden', 'public.forbidden', max_attempts => 1);
	SELECT djactor.define_actor_type('t.upgraded', 'public.allowed', max_attempts => 1);
	SELECT djactor.send('t.upgraded', 'k');
	SELECT djactor.wait_idle('1 min', 't.upgraded');
	SELECT djactor.define_actor_type('t.upgraded', 'public.allowed', state_version => 2, upgrade_handler => 'public.forbidden', max_attempts => 1);
	SELECT djactor.send(type, 'k') FROM unnest('{t.forbidden,t.upgraded}'::text[]) type});
ok(wait_drained($node, 'app'), 'messages come to their end');
is($node->safe_psql('app', q{SELECT actor_type, sqlstate, error FROM djactor.dead_letter ORDER BY 1}),
	"t.forbidden|42501|a security label forbids it\nt.upgraded|42501|a security label forbids it", 'a handler and an upgrade handler that are forbidden fail with that');
is($node->safe_psql('app', 'SELECT string_agg(what, $$ $$) FROM ran'), 'allowed', '... and only what is allowed has run');
$node->stop;
done_testing();
