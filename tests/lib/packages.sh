# Debian's packages, for tests/run and conf/demo/run: what is missing is installed, what is there is left alone.

packages_build=(meson ninja-build pkgconf gcc g++ libc6-dev libuv1-dev librdkafka-dev libcurl4-openssl-dev libssl-dev
    zlib1g-dev libisal-dev libzstd-dev libsimdjson-dev libinih-dev libsqlite3-dev libsystemd-dev libexpat1-dev
    libmicrohttpd-dev)
packages_package=(build-essential dpkg-dev debhelper lintian libcmocka-dev)
packages_fuzz=(clang libclang-rt-14-dev)
packages_farend=(python3 python3-aiohttp openssl kcat)
packages_tests=(libcmocka-dev python3-pytest python3-pytest-xdist python3-venv ca-certificates openjdk-17-jre-headless maven zstd gzip sqlite3
    systemd man-db groff strace patch libfaketime util-linux valgrind
    spin debootstrap systemd-container zsh fish chromium fonts-dejavu-core)

# Of chromium: what the status page looks like and does in it. Prometheus comes by tests/lib/prometheus.py,
# and the bench's peers by tests/bench/peers.py: installed, they would start.

# Azurite's. Where npm is at hand already, it may come with a Node from elsewhere, which Debian's would fight.
command -v npm >/dev/null || packages_tests+=(nodejs npm)

packages_missing()
{
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
    done
}

# Installs what is missing of the packages named; returns 1 with a sentence where it cannot.
packages_ensure()
{
    local missing log as_root=() update
    mapfile -t missing < <(packages_missing "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "Not root and no sudo here. As root: apt-get install --no-install-recommends ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive)
    log=$(mktemp)
    # The lists may be absent or out of date: then a first try fails, and the second has new ones.
    for update in no yes; do
        if [ "$update" = yes ] && ! "${as_root[@]}" apt-get update >>"$log" 2>&1 </dev/null; then
            break
        fi
        if "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null; then
            rm -f "$log"
            return 0
        fi
    done
    tail -n 40 "$log" >&2
    echo "Debian's packages could not be installed; everything apt said: $log" >&2
    return 1
}
