#!/bin/sh
# Let the loader find libraries in a folder, and see that all of them load with what the base image has.
# usage: loader.sh FOLDER
set -eu
# The last of its files: where the base image has a library too, programs keep the base image's.
echo "$1" > /etc/ld.so.conf.d/zz-gpurig.conf
ldconfig
for library in "$1"/*.so* /opt/gpurig/lib/python3*/site-packages/llama_cpp/lib/*.so; do
    if ldd "$library" 2>&1 | grep 'not found'; then
        echo "gpurig: error: ${library##*/} does not load in this base image: its libraries are older than the toolkit" \
            "image's; use a base image of the same distribution"
        exit 1
    fi
done
