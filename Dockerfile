# PostgreSQL with djactor, preloaded, for handlers in SQL and for Python classes.
#
#     docker build --pull -t djactor .
#     docker run -e POSTGRES_PASSWORD=... djactor
#
# --build-arg POSTGRES=18 chooses the server, 15 to 18. The official image is Debian with the packages of the PostgreSQL
# project, whose repository it has set up: headers and PL/Python come from there. PL/Python wants the server of exactly
# its own version, so apt brings that along where the image is older than the repository.

ARG POSTGRES=17

FROM postgres:${POSTGRES} AS build
RUN apt-get update && \
    apt-get install -y --no-install-recommends build-essential "postgresql-server-dev-$PG_MAJOR"
COPY . /src
RUN make -C /src install PG_CONFIG="/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" DESTDIR=/out

FROM postgres:${POSTGRES}
RUN apt-get update && \
    apt-get install -y --no-install-recommends "postgresql-plpython3-$PG_MAJOR" && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /out /
# initdb makes the postgresql.conf of a new data directory from this; one that exists keeps its own.
RUN echo "shared_preload_libraries = 'djactor'" >>/usr/share/postgresql/postgresql.conf.sample
