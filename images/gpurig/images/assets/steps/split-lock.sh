#!/bin/sh
# Split a lock file into llama-cpp-python's part and the rest: another change of it must not compile that again.
# usage: split-lock.sh LOCK FOLDER   (writes FOLDER/llama.lock and FOLDER/rest.lock)
set -eu
awk '/^llama-cpp-python==/ { mine = 1 } mine { print } mine && !/\\$/ { exit }' "$1" > "$2/llama.lock"
awk '/^llama-cpp-python==/ { mine = 1 } !mine { print } mine && !/\\$/ { mine = 0 }' "$1" > "$2/rest.lock"
grep -q . "$2/llama.lock"
grep -q . "$2/rest.lock"
