#!/bin/sh
# nvcc of CUDA 12 into /opt/cuda, from Debian's package: NVIDIA's Python packages of CUDA 12 have the toolkit but for it.
# usage: debian-nvcc.sh LOCK
#
# The package is unpacked and not installed: it would bring all of Debian's CUDA along. NVIDIA's programs in it need a C
# library of 2.34, so they run on every Debian that has python3 >= 3.11, whatever suite the package is of.
set -eu
suite=trixie
newest_gcc=13
fail() {
    echo "gpurig: error: $1; or name an image with a toolkit: --toolkit-image nvidia/cuda:12.9.1-devel-ubuntu22.04"
    exit 1
}
. /etc/os-release
if [ "$ID" != debian ]; then
    fail "nvcc of CUDA 12 is Debian's, and this base image is $ID: take a base image of Debian"
fi
version=$(sed -n 's/^nvidia-cuda-toolkit==\([^ ]*\).*/\1/p' "$1")

# From where the base image has its own packages, and signed as Debian signs them.
suites="${VERSION_CODENAME:-stable}|stable|oldstable|testing|unstable|sid"
mirror=$(apt-get update --print-uris | sed -nE "s#^'(.*)/dists/($suites)/InRelease'.*#\1#p" | head -n 1)
if [ -z "$mirror" ]; then fail "the base image's apt has no source of Debian's packages"; fi
work=$(mktemp -d)
mkdir -p "$work/lists/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite non-free" > "$work/sources.list"
cat > "$work/apt.conf" <<APT
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$work/lists";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
APT::Sandbox::User "root";
APT
cd "$work"
{
    APT_CONFIG=$work/apt.conf apt-get update -qq \
        && APT_CONFIG=$work/apt.conf apt-get download -qq "nvidia-cuda-toolkit=$version"
} || fail "the mirror of the base image does not give nvidia-cuda-toolkit $version of $suite"
hash=$(sha256sum nvidia-cuda-toolkit_*.deb | cut -d ' ' -f 1)
if ! grep -q "sha256:$hash\b" "$1"; then
    fail "nvidia-cuda-toolkit $version has sha256 $hash, which ${1##*/} does not name"
fi
dpkg-deb -x nvidia-cuda-toolkit_*.deb tree
mkdir -p /opt/cuda/bin /opt/cuda/nvvm/bin
mv tree/usr/bin/bin2c tree/usr/bin/cudafe++ tree/usr/bin/fatbinary tree/usr/bin/nvlink /opt/cuda/bin/
mv tree/usr/lib/nvidia-cuda-toolkit/bin/nvcc tree/usr/lib/nvidia-cuda-toolkit/bin/crt /opt/cuda/bin/
mv tree/usr/lib/nvidia-cuda-toolkit/bin/cicc /opt/cuda/nvvm/bin/
echo "pkg:deb/debian/nvidia-cuda-toolkit@$version?arch=$(dpkg --print-architecture)&checksum=sha256:$hash" \
    > /opt/cuda/nvcc.purl
cd /
rm -rf "$work"
# Where it finds the rest; Debian's own names Debian's folders.
cat > /opt/cuda/bin/nvcc.profile <<'PROFILE'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib64/stubs" "-L$(TOP)/lib64"
PROFILE
# It looks for the compiler of the host's code in its own folder first.
if [ "$(g++ -dumpversion | cut -d . -f 1)" -gt "$newest_gcc" ]; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "g++-$newest_gcc"
    rm -rf /var/lib/apt/lists/*
    for name in gcc g++; do ln -s "/usr/bin/$name-$newest_gcc" "/opt/cuda/bin/$name"; done
fi
