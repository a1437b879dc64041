#!/bin/sh
# Compile llama-cpp-python and install it into /opt/gpurig.
# usage: CPU_TARGET=x86-64-v3 llama.sh LOCK [CMAKE-OPTION...]
set -eu
lock=$1
shift
# GGML_NATIVE=OFF and a named level: the image must run on other machines than the one that built it, and its tag,
# a hash of its inputs, must mean one binary. `gpurig-job selfcheck` compares the level with the processor.
v3='-DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON'
case "$(uname -m)/${CPU_TARGET}" in
    x86_64/x86-64-v2) level='-DGGML_SSE42=ON' ;;
    x86_64/x86-64-v3) level="$v3" ;;
    x86_64/x86-64-v4) level="$v3 -DGGML_AVX512=ON" ;;
    x86_64/*) echo "error: unknown CPU_TARGET ${CPU_TARGET}"; exit 1 ;;
    *) level= ;;
esac
export CMAKE_ARGS="-DGGML_NATIVE=OFF $level $*"
export PIP_CONFIG_FILE=/opt/build/pip.conf
# Without isolation the locked tools build it, not the newest ones. --verbose: minutes of silence look like a hang.
export PATH="/opt/build/bin:$PATH"
pip download --no-build-isolation --no-binary :all: --dest /src -r "$lock"
export PIP_REQUIRE_HASHES=0
# In folders that are always the same: their names get into the libraries, and pip's own are random.
mkdir /src/tree
tar -xzf /src/*.tar.gz -C /src/tree --strip-components=1
pip wheel --verbose --no-build-isolation --no-deps --config-settings=build-dir=/src/build --wheel-dir /wheels /src/tree
pip --python /opt/gpurig/bin/python install --no-compile /wheels/*.whl
# The source package is made from a git checkout and keeps the commit of llama.cpp in it.
tar -xzOf /src/*.tar.gz --wildcards '*/.git/modules/vendor/llama.cpp/HEAD' > /opt/gpurig/llama.cpp-commit
cd /opt/gpurig/lib/python3*/site-packages
rm -rf bin include lib share
cd llama_cpp/lib
# A wheel knows no links: every library is in it three times, under each of its names.
for real in *.so.*.*.*; do
    strip --strip-unneeded "$real"
    ln -sf "$real" "${real%.*.*}"
    ln -sf "$real" "${real%.*.*.*}"
done
# Beside the libraries that need it, where their run path ($ORIGIN) looks: slim bases have no OpenMP.
cp -L "$(ldconfig -p | awk '/libgomp\.so\.1 / { print $NF; exit }')" libgomp.so.1
