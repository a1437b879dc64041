#!/bin/sh
# What compiles: g++, cmake and ninja of the distribution, two virtual environments, the locked build tools; and tini,
# which the image gets.
# /opt/gpurig is the one that the image gets (without pip), /opt/build the one that installs and compiles.
# usage: tools.sh LOCK [DEBIAN-PACKAGE...]
set -eu
lock=$1
shift
apt-get update -qq
apt-get install -y -qq --no-install-recommends g++ cmake ninja-build tini "$@"
python3 -c 'import ensurepip, venv' 2>/dev/null || apt-get install -y -qq --no-install-recommends python3-venv
rm -rf /var/lib/apt/lists/*
python3 -m venv --without-pip /opt/gpurig
python3 -m venv /opt/build
# Every stage from here on installs by hash, and nothing that a lock file does not name.
{
    echo '[global]'
    printf '%s = true\n' disable-pip-version-check no-cache-dir no-deps no-input require-hashes
    # A site's own certificate authorities, where the build context has them.
    if [ -f /ca/ca-bundle.pem ]; then echo 'cert = /ca/ca-bundle.pem'; fi
} > /opt/build/pip.conf
PIP_CONFIG_FILE=/opt/build/pip.conf /opt/build/bin/pip install --quiet -r "$lock"
