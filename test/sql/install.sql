--
-- Installing: what CREATE EXTENSION brings, and who may use it.
-- Section 2 (public surface), section 4.1 (rights), section 3 point 24.
--
\getenv tests PG_ABS_SRCDIR
\i :tests/sql/include/begin.sql

-- # The extension is trusted, not relocatable, and owns the schema djactor
SELECT e.extversion, e.extrelocatable, v.trusted, v.superuser, v.schema
FROM pg_extension e JOIN pg_available_extension_versions v ON v.name = e.extname AND v.version = e.extversion
WHERE e.extname = 'djactor';
SELECT o.rolsuper AS schema_belongs_to_a_superuser
FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname = 'djactor';

-- # Every table, view, column and function has a comment (no rows)
SELECT c.oid::regclass AS object
FROM pg_class c
WHERE c.relnamespace = 'djactor'::regnamespace AND c.relkind IN ('r', 'v')
	AND obj_description(c.oid, 'pg_class') IS NULL
ORDER BY 1::text;
SELECT c.oid::regclass AS object, a.attname AS attribute
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'djactor'::regnamespace AND c.relkind IN ('r', 'v')
	AND col_description(c.oid, a.attnum) IS NULL
ORDER BY c.relname, a.attnum;
SELECT p.oid::regprocedure AS object
FROM pg_proc p
WHERE p.pronamespace = 'djactor'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
ORDER BY 1::text;

-- # The schema may be used by everybody; tables and columns are granted to the database's owner
SELECT g.grantee::regrole::text AS grantee, g.privilege_type
FROM pg_namespace n, aclexplode(n.nspacl) g
WHERE n.nspname = 'djactor' AND g.grantee <> n.nspowner ORDER BY 1, 2;
SELECT c.relname, g.grantee::regrole::text AS grantee, string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type) AS privileges
FROM pg_class c, aclexplode(c.relacl) g
WHERE c.relnamespace = 'djactor'::regnamespace AND g.grantee <> c.relowner
GROUP BY 1, 2 ORDER BY 1, 2;
SELECT c.relname, a.attname, g.grantee::regrole::text AS grantee, string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type) AS privileges
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl) g
WHERE c.relnamespace = 'djactor'::regnamespace AND g.grantee <> c.relowner
GROUP BY 1, 2, 3, a.attnum ORDER BY 1, a.attnum;

-- # Functions that not everybody may call
SELECT p.proname
FROM pg_proc p
WHERE p.pronamespace = 'djactor'::regnamespace
	AND NOT EXISTS (SELECT FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) g
		WHERE g.grantee = 0 AND g.privilege_type = 'EXECUTE')
ORDER BY 1;

-- # None of the functions runs with the rights of its owner
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'djactor'::regnamespace AND p.prosecdef;

-- # Nothing of it can be moved, and no table has foreign keys or deferrable constraints
CREATE SCHEMA elsewhere;
CALL fails('ALTER EXTENSION djactor SET SCHEMA elsewhere');
DROP SCHEMA elsewhere;
SELECT conrelid::regclass, conname FROM pg_constraint
WHERE connamespace = 'djactor'::regnamespace AND (contype = 'f' OR condeferrable);

-- # No column has a type that pg_upgrade cannot carry (no rows)
SELECT attrelid::regclass, attname, atttypid::regtype FROM pg_attribute
WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'djactor'::regnamespace)
	AND atttypid IN ('regcollation'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype, 'regnamespace'::regtype,
		'regoper'::regtype, 'regoperator'::regtype, 'regproc'::regtype, 'regprocedure'::regtype);

-- # Every table can be published: its rows can be told apart
SELECT relname, relreplident FROM pg_class c
WHERE relnamespace = 'djactor'::regnamespace AND relkind = 'r'
	AND relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary);

-- # Sessions draw ids one by one: who sends later gets the higher one
SELECT seqrelid::regclass, seqcache, seqincrement, seqcycle FROM pg_sequence
WHERE seqrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'djactor'::regnamespace) ORDER BY 1::text;
