#!/bin/sh
# Runs once, on an empty volume: a role and a database for us and for Temporal, neither a superuser.
set -eu

psql --set ON_ERROR_STOP=1 --username postgres \
  --set lovelace="$LOVELACE_DB_PASSWORD" --set temporal="$TEMPORAL_DB_PASSWORD" <<'SQL'
create role lovelace login password :'lovelace';
create database lovelace owner lovelace;
create role temporal login password :'temporal';
create database temporal owner temporal;
create database temporal_visibility owner temporal;
SQL
