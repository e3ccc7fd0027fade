#!/bin/sh
# The parts of the bench that Debian and Ubuntu have: load generators, the vendor (nginx), peers, a C compiler, the
# guard's counter. Run it as root. It installs packages and stops nothing, but Debian starts nginx and haproxy as
# services: stop them first if a port or a core of yours matters.
set -eu
apt-get update -qq
apt-get install --yes --no-install-recommends wrk nghttp2-client nginx-extras haproxy util-linux valgrind \
    gcc libc6-dev python3-dev
