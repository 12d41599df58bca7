#!/usr/bin/env bash
# PostgreSQL and Redis from Debian's packages, for tests/engine/test_team.py: no service is started and no cluster made. Takes two minutes at
# the most and fails nobody: without them those tests are skipped.
set -u
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
get() {
    timeout 30 apt-get -qq update
    timeout 90 apt-get -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold install postgresql redis-server
}
get >/dev/null 2>&1 || echo "no PostgreSQL and no Redis could be installed; the tests that need them are skipped"
