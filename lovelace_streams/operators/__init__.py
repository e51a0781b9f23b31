"""The Bytewax operators, one a module: thin, on top of packages that know no engine."""
