#!/bin/sh
# The CUDA toolkit as one folder that nvcc and CMake know their way in, /opt/cuda: another image's, where its files are
# in /opt/vendor, else the vendor's Python packages.
# usage: cuda.sh LOCK
set -eu
if [ -x /opt/vendor/bin/nvcc ]; then
    mv /opt/vendor /opt/cuda
else
    PIP_CONFIG_FILE=/opt/build/pip.conf /opt/build/bin/pip install --quiet --no-compile --only-binary :all: \
        --target /opt/cuda-packages -r "$1"
    mv /opt/cuda-packages/nvidia/cu13 /opt/cuda
    rm -rf /opt/cuda-packages
    chmod -R a+rx /opt/cuda/bin /opt/cuda/nvvm/bin
    cd /opt/cuda
    ln -s lib lib64
    for library in lib/*.so.*; do
        ln -s "${library#lib/}" "${library%%.so.*}.so"
    done
fi
cd /opt/cuda
# The driver's library comes from the host when a container starts, and the packages have no stub of it. One is made
# from the declarations in cuda.h: linked against it, llama.cpp can use the driver's virtual memory for its pool.
if [ ! -e lib64/stubs/libcuda.so ]; then
    mkdir -p lib64/stubs
    printf '#include <cuda.h>\n' | gcc -E -P -Iinclude - | grep -oE '\bcu[A-Z][A-Za-z0-9_]*[[:space:]]*\(' | tr -d ' (' \
        | sort -u | awk '{ print "int " $1 "(void) { return 34; }" }' > /tmp/stub.c
    grep -q 'cuMemAddressReserve(' /tmp/stub.c
    gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o lib64/stubs/libcuda.so /tmp/stub.c
    rm /tmp/stub.c
fi
# What the final stage takes, under the names that the loader asks for.
mkdir /opt/cuda-libraries
for library in lib64/libcudart.so.[0-9]* lib64/libcublas.so.[0-9]* lib64/libcublasLt.so.[0-9]*; do
    case "${library#*.so.}" in
        *.*) ;;
        *) cp -L "$library" /opt/cuda-libraries/ ;;
    esac
done
[ "$(ls /opt/cuda-libraries | wc -l)" -eq 3 ]
# No times: equal content is an equal layer, which a registry has already.
find /opt/cuda-libraries -exec touch -h -d @0 {} +
