#!/bin/sh
# See that the base image has python3 >= 3.11; the distribution's is taken where it has none.
set -eu
enough='import sys; sys.exit(sys.version_info < (3, 11))'
if ! python3 -c "$enough" 2>/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends python3
    rm -rf /var/lib/apt/lists/*
    python3 -c "$enough" || { echo 'gpurig: error: this base image has no python3 >= 3.11'; exit 1; }
fi
