# Makefile of djactor
#
# Two faces in one file.  In the tree it is the front door: `make demo`,
# `make test` and so on, which need nothing on the machine but make and bash
# (tools/setup installs the rest).  In a build directory it is an ordinary PGXS
# Makefile.  `make all` and `make install` in the tree go on in the build
# directory of the server version at hand, .build/pg<major>/obj.
#
# What always holds: no object file lies in the tree, so those of two server
# versions cannot mix; and nothing at parse time needs a server's headers, so a
# fresh machine can run the front door.
#
# PG_CONFIG= chooses the server, for every target.

top := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))

ifeq ($(CURDIR),$(top))
#
# The front door
#
.DEFAULT_GOAL := all

PG_CONFIG ?= $(shell tools/pg-config)
# pg15, or pg15-assert for a server of tools/debug-server
objdir = .build/pg$$('$(PG_CONFIG)' --version | sed -E 's/^[^0-9]*([0-9]+)[.0-9]*(-[a-z]+)?.*/\1\2/')/obj

# The lock keeps two builds of one tree apart, say a test run and a demo.
all install uninstall:
	@pgxs=$$('$(PG_CONFIG)' --pgxs 2>/dev/null) && test -f "$$pgxs" || { \
	    echo "make: no PostgreSQL server headers found; run tools/setup, or name a server with PG_CONFIG=" >&2; exit 1; }
	@mkdir -p $(objdir) && \
	flock .build/lock $(MAKE) --no-print-directory -C $(objdir) \
	    -f '$(top)/Makefile' PG_CONFIG='$(PG_CONFIG)' $@

demo:
	@tools/with-env python examples/chat/demo.py $(ARGS)

example:
	@tools/with-env python tools/example.py $(NAME) $(ARGS)

test:
	@tools/run-tests $(ARGS) $(T)

test-matrix:
	@tools/test-matrix $(ARGS)

test-peers:
	@tools/with-env python test/peers/peers.py $(ARGS)

test-citus:
	@tools/test-citus

bench:
	@tools/with-env python bench/run.py $(ARGS)

bench-rivals:
	@PYTHONPATH=bench tools/with-env python -m rivals.run $(ARGS)

deb:
	@tools/deb

dist:
	@tools/dist $(ARGS)

dist-check:
	@tools/dist-check

dist-try:
	@tools/dist-try

try-images:
	@tools/try-images

docs:
	@tools/docs

reference:
	@tools/with-env python tools/reference.py

screenshot:
	@tools/setup --tests
	@tools/with-env python tools/screenshot.py $(ARGS)

asserts sanitize valgrind:
	@tools/hygiene $(@:asserts=assert) $(ARGS) $(T)

soak:
	@tools/with-env python test/soak/soak.py $(ARGS)

soak-hosts:
	@tools/with-env python test/soak/hosts.py $(ARGS)

lint:
	@tools/lint

tidy:
	@tools/tidy

format:
	@tools/indent
	@.venv/bin/python -m ruff check --quiet --fix-only .
	@.venv/bin/python -m ruff format .

clean:
	rm -rf --one-file-system .build

distclean: clean
	rm -rf .venv .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

help:
	@echo 'make demo       a Django project, workers in PostgreSQL, live   (ARGS=--stay: until Ctrl-C)'
	@echo 'make example    an example, live: events or gateway             (NAME=events)'
	@echo 'make test       all test suites                                 (T=part of a test name)'
	@echo 'make test-matrix    the same on PostgreSQL 16, 17, 18 and 19      (as root; ARGS="17 --only NAME")'
	@echo 'make test-peers     the tests of PostgreSQL and Django, with and without djactor   (ARGS="--suite regress")'
	@echo 'make test-citus     the tests of several servers; says what takes Citus'
	@echo 'make bench      the benchmarks                                  (ARGS=options of bench/run.py)'
	@echo 'make bench-rivals   djactor and other queues side by side           (ARGS=options of bench/rivals/run.py)'
	@echo 'make            compile, for the server that PG_CONFIG= names'
	@echo 'make install    compile and install there'
	@echo 'make deb        build a Debian package, into .build/deb'
	@echo 'make dist       all packages of a release, into .build/dist     (ARGS=--no-deb)'
	@echo 'make dist-check the same twice, which must be the same bytes'
	@echo 'make dist-try   install them in an empty Debian tree, and follow the quick start'
	@echo 'make try-images build the images of the Dockerfiles with buildah, and try them'
	@echo 'make docs       the pages of docs/ as a site, into .build/docs'
	@echo 'make reference  writes docs/catalog.md from the comments of the catalog'
	@echo 'make screenshot takes docs/live.png, the picture of the live page, anew'
	@echo 'make soak       an hour of random load with kills              (ARGS="--minutes 5")'
	@echo 'make soak-hosts hosts and servers are killed a thousand times  (ARGS="--kills 100")'
	@echo 'make asserts    all tests on a server with assertions           (T=, ARGS=options of tools/run-tests)'
	@echo 'make sanitize   the same with the address and undefined behaviour sanitizers'
	@echo 'make valgrind   the regression and isolation tests under valgrind'
	@echo 'make lint       check scripts, Python and C, in a minute'
	@echo 'make tidy       check C with pgindent and clang-tidy, in some minutes'
	@echo 'make format     repair the style of C and Python'
	@echo 'make clean      remove what was built; distclean: the virtual environment too'

.PHONY: all install uninstall demo example test test-matrix test-peers test-citus docs reference screenshot bench bench-rivals deb dist dist-check dist-try try-images asserts sanitize valgrind soak soak-hosts lint tidy format clean distclean help

else
#
# The build directory
#
# The version stands in the Django app, which has to know it without this Makefile.  The extensions
# have its first two numbers: what has the third only changes nothing in SQL.
release := $(shell sed -n 's/^__version__ = "\([0-9.]*\)"$$/\1/p' '$(top)/django/djactor/__init__.py')
version := $(shell echo '$(release)' | cut -d . -f 1,2)
$(if $(version),,$(error no __version__ in django/djactor/__init__.py))

# The scripts have no version in their names before they are built; those of upgrades have two.
EXTENSION = djactor djactor_python djactor_cluster
MODULE_big = djactor
OBJS = $(patsubst $(top)/%.c,%.o,$(sort $(wildcard $(top)/src/*.c $(top)/src/*/*.c)))
DATA = $(patsubst $(top)/%,%,$(sort $(wildcard $(top)/sql/*--*--*.sql)))
DATA_built = $(EXTENSION:=--$(version).sql)

# The control files are read as they are.
$(foreach e,$(EXTENSION),$(if $(shell grep -x "default_version = '$(version)'" '$(top)/$(e).control'),,\
	$(error $(e).control has another version than django/djactor/__init__.py, $(version))))
PGFILEDESC = "djactor - actor runtime"

# The server's headers are named with -isystem, which makes the warnings ours
# alone.  -MMD writes a .d file beside each object: which headers of ours it
# read.  No bitcode: it would need clang, and nothing here is worth inlining.
# A warning is an error in a checkout; a release is built by compilers that
# nobody here has seen.
WERROR ?= $(if $(wildcard $(top)/.git),-Werror)
PG_CPPFLAGS = -MMD -MP -DDJA_VERSION=$(version) -DDJA_RELEASE=$(release) -I$(top)/src -isystem $(shell '$(PG_CONFIG)' --includedir-server)
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter $(WERROR)
override with_llvm := no

# Where the sources are.  PGXS finds out by itself, unless the server was configured in
# its source tree: then autoconf has taken that out of Makefile.global.
VPATH = $(top)

PG_CONFIG ?= pg_config
PGXS := $(shell '$(PG_CONFIG)' --pgxs)
include $(PGXS)

# Made anew whenever the version changes, as the objects are.
%--$(version).sql: $(top)/sql/%.sql .build-of
	cp $< $@

# The Python module of djactor_python lies in a directory of its own, since the
# server's Python gets that directory on its path.
python_dir = $(DESTDIR)$(datadir)/djactor

install: install-python
install-python:
	$(MKDIR_P) '$(python_dir)'
	$(INSTALL_DATA) '$(top)/django/djactor_python.py' '$(python_dir)/'

uninstall: uninstall-python
uninstall-python:
	rm -rf '$(python_dir)/djactor_python.py' '$(python_dir)/__pycache__'
	rmdir '$(python_dir)' 2>/dev/null || true
.PHONY: install-python uninstall-python

# Objects belong to one minor version of the server, one set of flags and one
# set of sources.  The stamp's text names all three, and changes only with them
# (not with the directories: a private copy of the server is the same server).
build_of := $(shell '$(PG_CONFIG)' --version) $(CC) $(filter-out -I% /%,$(CPPFLAGS)) $(CFLAGS) $(OBJS)

.build-of: FORCE
	@mkdir -p $(sort $(dir $(OBJS)))
	@printf '%s\n' '$(subst ','\'',$(build_of))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(build_of))' >$@

$(OBJS): .build-of
FORCE:
.PHONY: FORCE

-include $(OBJS:.o=.d)

endif
