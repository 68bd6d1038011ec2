#!/bin/sh
# Installs what `make run` and the tests need: system packages, then .venv.
# Servers that RABBITMQ_URL or DATABASE_URL name are not installed, except with the
# argument "tests": some tests need private ones. With "all-tests" also what only slow
# tests need: PostgreSQL, PgBouncer, Node.js with packages, promtool, nginx, Chromium, what
# compares the API with its OpenAPI document, and what checks the files for deployment.
# With "bench", what the benchmarks compare with, and wrk.
# With "containers", podman, and debootstrap for the images that it uses.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/requirements.sha256
clients=tests/support/clients
clients_stamp=$clients/node_modules/.sha256
with=${1:-}
policy=/usr/sbin/policy-rc.d
# Debian keeps servers where ordinary users do not look.
PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "setup: $*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null
}

given() {
    [ "$with" != tests ] && [ "$with" != all-tests ] || return 1
    eval "[ -n \"\${$1:-}\${$1_FILE:-}\" ]" || grep -Eqs "^(export )?$1(_FILE)?=." .env
}

missing_packages() {
    given RABBITMQ_URL || has rabbitmq-server || echo rabbitmq-server
    given DATABASE_URL || has mariadbd || has mysqld || echo mariadb-server
    if has "$python"; then
        has_module venv && has_module ensurepip || echo python3-venv
    else
        echo python3 python3-venv
    fi
    if [ "$with" = all-tests ]; then
        has postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 ||
            echo postgresql
        has pgbouncer || echo pgbouncer
        has node || echo nodejs
        has npm || echo npm
        has promtool || echo prometheus
        has nginx || echo nginx
    fi
    [ "$with" != bench ] || has wrk || echo wrk
    if [ "$with" = containers ]; then
        for one in podman runc iptables debootstrap; do
            has $one || echo $one
        done
        [ -x /usr/lib/podman/netavark ] || echo netavark
        [ -x /usr/lib/podman/aardvark-dns ] || echo aardvark-dns
    fi
    ! needs_browser || has chromium || echo chromium
    # Without it, files of reports have Western European letters only.
    if has apt-get; then
        [ -e /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf ] || echo fonts-dejavu-core
    fi
    # The rest is for building mysqlclient.
    if ! is_current; then
        header="import os, sysconfig as s; open(s.get_path('include') + '/Python.h')"
        "$python" -c "$header" 2>/dev/null || echo python3-dev
        has gcc || echo gcc libc6-dev
        has pkg-config || echo pkg-config
        has_library libmariadb || has_library mysqlclient || echo libmariadb-dev
    fi
}

needs_browser() {
    [ "$with" = all-tests ] || [ "$with" = browser ]
}

has_module() {
    "$python" -c "import $1" 2>/dev/null
}

has_library() {
    pkg-config --exists "$1" 2>/dev/null
}

is_current() {
    [ -x .venv/bin/python ] && sha256sum --check --status "$stamp" 2>/dev/null
}

install_packages() {
    by_hand="Install these by hand: $*"
    has apt-get || fail "apt-get is missing. $by_hand"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || fail "only root can install packages. $by_hand"
        sudo=sudo
        sudo true || fail "sudo refuses. $by_hand"
    fi
    echo "setup: installing $*"
    # The packages' own servers stay off: private ones are used.
    if [ ! -e $policy ] || grep -q project/setup.sh $policy; then
        trap '$sudo rm -f $policy' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\n# Temporary, from project/setup.sh\nexit 101\n' |
            $sudo tee $policy >/dev/null
        $sudo chmod +x $policy
    fi
    $sudo apt-get update -q || echo "setup: apt-get update failed; going on" >&2
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
        --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" ||
        fail "apt-get failed. $by_hand"
}

# install_also FILE: the Python packages that a file lists, unless it is done.
install_also() {
    done_with=.venv/$(echo "$1" | tr / -).sha256
    sha256sum --check --status "$done_with" 2>/dev/null && return
    .venv/bin/python -m pip install -q --disable-pip-version-check -r "$1" ||
        fail "pip failed; see above."
    sha256sum "$1" >"$done_with"
}

packages=$(missing_packages)
# shellcheck disable=SC2086 # one word a package
[ -z "$packages" ] || install_packages $packages

if ! is_current; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed; PYTHON=/path/to/python names one."
    echo "setup: making .venv"
    .venv/bin/python -m pip --version >/dev/null 2>&1 ||
        "$python" -m venv --clear .venv || fail "making .venv failed."
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes \
        -r requirements-dev.lock || fail "pip failed; see above."
    sha256sum requirements-dev.lock >"$stamp"
fi

if [ "$with" = all-tests ] && ! sha256sum --check --status $clients_stamp 2>/dev/null; then
    npm ci --prefix $clients --no-audit --no-fund || fail "npm failed; see above."
    sha256sum $clients/package-lock.json >$clients_stamp
fi

! needs_browser || install_also tests/support/browser-requirements.txt
[ "$with" != all-tests ] || install_also tests/support/openapi-requirements.txt
[ "$with" != all-tests ] || install_also tests/support/deployment-requirements.txt
[ "$with" != bench ] || install_also tests/benchmarks/requirements.txt
[ "$with" != containers ] || install_also tests/containers/requirements.txt
