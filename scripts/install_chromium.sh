#!/usr/bin/env bash
# Chromium from Debian's packages, for tests/browser. Takes three minutes at the most and fails nobody: without it those tests are skipped.
set -u
export DEBIAN_FRONTEND=noninteractive
get() {
    timeout 30 apt-get -qq update
    timeout 150 apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=60 install chromium fonts-dejavu-core
}
get >/dev/null 2>&1 || echo "no Chromium could be installed; the tests that need it are skipped"
