#!/usr/bin/env bash
# Builds the tests of the CPU kernels for 64-bit Arm and runs them in emulation, on an x86 machine:
#   bash tests/neon.sh [NAME...]     names of tests/kernels/NAME.cpp; all of them by default
# Installs Debian's cross compiler and qemu-user where they are missing. Some minutes; the other
# instruction sets are part of tests/run.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash cmake/install_packages.sh build tests neon

names=("$@")
if ((${#names[@]} == 0)); then
  for file in tests/kernels/*.cpp; do names+=("$(basename "$file" .cpp)"); done
fi
out=build/neon
mkdir -p "$out/include"
# Header-only libraries alone: the rest of /usr/include is of this machine's processor.
for library in catch2 nlohmann xsimd xtensor xtl; do
  ln -sfn "/usr/include/$library" "$out/include/$library"
done
compile=(aarch64-linux-gnu-g++ -std=c++20 -O1 -static -pthread -Iinclude -Itests
  -isystem "$out/include" -isystem /usr/include/eigen3
  "-DKINDRED_FIXTURES=\"$PWD/tests/fixtures\"" "-DKINDRED_SOURCE=\"$PWD\""
  "-DKINDRED_BINARY=\"$PWD/build\"")
"${compile[@]}" -c tests/support/main.cpp -o "$out/main.o"

one() {
  rm -f "$out/$1.passed"
  "${compile[@]}" "tests/kernels/$1.cpp" "$out/main.o" -o "$out/$1" >"$out/$1.log" 2>&1 &&
    qemu-aarch64 "$out/$1" >>"$out/$1.log" 2>&1 && touch "$out/$1.passed"
}
for name in "${names[@]}"; do
  while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n || true; done
  one "$name" &
done
wait || true
failed=0
for name in "${names[@]}"; do
  if [[ -f $out/$name.passed ]]; then
    printf '%-28s %s\n' "$name" "$(grep . "$out/$name.log" | tail -n 1)"
  else
    failed=$((failed + 1))
    printf '%-28s FAILED\n' "$name"
    cat "$out/$name.log"
  fi
done
printf '%d passed, %d failed\n' $((${#names[@]} - failed)) "$failed"
((failed == 0))
