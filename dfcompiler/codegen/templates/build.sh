#!/bin/sh
# Rebuilds model.so from the sources beside this script: build.sh [OUTPUT]
#
# Needs @COMPILER@ for the same bytes; another version gives the same
# numbers up to rounding. CXX, and NVCC for a GPU, choose the compilers;
# CUTLASS_HOME names the folder of CUTLASS where that is needed.
set -eu
cd "$(dirname "$0")"
compiler="@COMMAND@"
case ${1:-} in
  "") out=../model.so ;;
  /*) out=$1 ;;
  *) out=$OLDPWD/$1 ;;
esac
objects=$(mktemp -d "${TMPDIR:-/tmp}/dfc-build.XXXXXX")
trap 'rm -rf "$objects" "$out.$$"' EXIT
trap 'exit 130' INT TERM
for unit in @UNITS@; do
  $compiler @COMPILE_FLAGS@ \
    @INCLUDES@ @SEED@ -c "$unit" -o "$objects/$unit.o"
done
$compiler @LINK_FLAGS@ @OBJECTS@ -o "$out.$$"
mv "$out.$$" "$out"
