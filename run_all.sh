#!/usr/bin/env bash
# The whole companion from one command; `./run_all.sh --help` says what it can do.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
venv="$root/.venv"
stamp="$venv/feddiff.stamp" # is there when an installation was completed
busy="$venv/feddiff.installing" # is there, with the process number of pip, while one is going on
probe="$root/lib/feddiff/experiments/environment.py"
# One thread a process: notebooks run side by side, and small models are no faster on more threads.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

help() {
    cat <<'HELP'
./run_all.sh [quick|standard|paper] [options]   run the notebooks of a scale, then its tables, figures and claims
      quick      (default) minutes on a laptop      standard   the committed results      paper   the papers' sizes
      --only PATTERN   only jobs whose name contains PATTERN or matches it as a glob ("10_*", "*adult*seed=0");
                       may be repeated
      --jobs N         jobs side by side (default: the number of cores)
      --dry-run        list what would run, and run nothing
      --no-figures     leave tables, figures and README as they are (later: ./run_all.sh figures SCALE)
      --fresh          forget finished jobs and trained runs
      -p NAME=VALUE    set a parameter in every selected notebook that has it (may be repeated)
      -- OPTIONS       hand what follows to Snakemake, e.g. `-- --executor slurm`
./run_all.sh test [pytest options]   the tests and every notebook; with options: pytest with them and nothing else
./run_all.sh lab [jupyter options]   JupyterLab on the notebooks
./run_all.sh bench [options]         the benchmarks
./run_all.sh figures [scale]         tables and figures once more, from the records alone
./run_all.sh --help                  this text

It uses the active conda or virtual environment if that holds the versions of constraints.txt, else .venv in this
folder, which it makes (Python 3.11 to 3.13). Finished jobs do not run again until their notebook, the library
modules that the notebook imports, or their parameters change.
HELP
}

say() { printf 'feddiff: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

usable() { # does this interpreter start, with a version that we support?
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

find_python() { # print an interpreter that can make .venv
    local name path seen="" bare=""
    for name in python3.11 python3.12 python3.13 python3 python; do
        path="$(command -v "$name" 2>/dev/null)" || continue
        if ! usable "$path"; then
            seen="$seen, $name is $("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null ||
                echo "not working")"
        elif "$path" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            printf '%s\n' "$path"
            return
        else
            bare="$path"
        fi
    done
    if [ -n "$bare" ]; then
        die "$bare cannot make virtual environments (no ensurepip); install its venv package" \
            "(Debian, Ubuntu: apt install python3-venv) and start again."
    fi
    die "Python 3.11, 3.12 or 3.13 is needed, but none is on the PATH (${seen#, }${seen:+; }install one," \
        "or activate an environment made from environment.yml), then start again."
}

check_space() { # wheels of torch bring the CUDA libraries along on Linux
    local need=3 free
    if [ "$(uname -s)" = Linux ] && [ "$(uname -m)" = x86_64 ]; then need=9; fi
    free="$(df -Pk "$root" | awk 'NR == 2 {print int($4 / 1048576)}')"
    if [ "${free:-$need}" -lt "$need" ]; then
        die "not enough space: .venv needs about $need GB in $root, and $free GB are free."
    fi
}

explain_install() { # one sentence for a failed pip, from its log
    local log="$1" offline='name resolution|connection (error|refused|broken|reset)|network is unreachable|timed out'
    offline="$offline|NewConnectionError|ProxyError|getaddrinfo"
    if grep -qiE 'no space left|errno 28|disk quota' "$log"; then
        die "no space left while installing into .venv (it needs about 9 GB with CUDA libraries, and room in" \
            "${TMPDIR:-/tmp}); free some and start again."
    elif grep -qiE "$offline" "$log"; then
        die "no network: pip cannot reach the package index; connect (or set pip's index or proxy) and start again." \
            "Details: $log"
    fi
    die "installing failed: $(grep -iE '^ *error' "$log" | tail -n 1 || true) Details: $log"
}

install() { # into .venv, with a sign of life now and then
    local log="$venv/install.log" began=$SECONDS last=$SECONDS pid
    say "installing the versions of constraints.txt into .venv (some minutes the first time; log: .venv/install.log)"
    (cd "$root" && exec "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --retries 2 \
        -c constraints.txt -e '.[test]') >"$log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$busy"
    trap 'kill "$pid" 2>/dev/null || true; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.5
        if [ $((SECONDS - last)) -ge 20 ]; then
            last=$SECONDS
            say "installing, $((SECONDS - began)) s: $(grep -E '^(Collecting|Installing)' "$log" | tail -n 1 | cut -c1-70)"
        fi
    done
    trap - INT TERM
    local code=0
    wait "$pid" || code=$?
    rm -f "$busy"
    [ "$code" -eq 0 ] || explain_install "$log"
    say "installed in $((SECONDS - began)) s"
}

find_environment() { # set $python
    local active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" why
    if [ -n "$active" ] && [ "$active" != "$venv" ] && [ -x "$active/bin/python" ]; then
        if ! usable "$active/bin/python"; then
            say "the active environment has no Python 3.11 to 3.13 that works; using .venv"
        elif why="$("$active/bin/python" "$probe" check "$root")"; then
            python="$active/bin/python"
            return
        else
            say "the active environment differs from constraints.txt ($why); using .venv"
        fi
    fi
    python="$venv/bin/python"
    if [ -f "$busy" ]; then
        if kill -0 "$(cat "$busy")" 2>/dev/null; then
            die "another start is installing into .venv (process $(cat "$busy")); wait for it or stop it."
        fi
        # A package that pip was copying when it was stopped looks installed.
        say "an earlier installation into .venv was stopped half-way; making it anew"
        rm -rf "$venv"
    fi
    if [ -e "$venv" ] && ! usable "$python"; then
        if [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
            die ".venv is there but is no virtual environment; move it away and start again."
        fi
        say ".venv is broken (its Python does not start, or is too old); making it anew"
        rm -rf "$venv"
    fi
    if [ -e "$venv" ] && "$python" "$probe" check "$root" "$stamp" >/dev/null; then
        return
    fi
    if [ -e "$venv" ] && ! "$python" -m pip --version >/dev/null 2>&1; then
        say ".venv is broken (it has no working pip, perhaps an interrupted start); making it anew"
        rm -rf "$venv"
    fi
    if [ ! -e "$venv" ]; then
        check_space
        local base
        base="$(find_python)"
        "$base" -m venv "$venv" >/dev/null || die "$base could not make .venv in $root; see the message above."
    fi
    rm -f "$stamp"
    install
    why="$("$python" "$probe" check "$root")" ||
        die "after installing, .venv still differs: $why. Remove .venv and start again."
    "$python" "$probe" stamp "$root" >"$stamp"
}

run_tests() {
    local status=0
    cd "$root"
    if [ $# -gt 0 ]; then
        exec "$python" -m pytest "$@"
    fi
    # Each takes many minutes of one core: most notebooks run beside the tests, to be reported after them, the rest
    # after the tests, so that two cores are done at about the same time.
    local report beside
    local -a notebooks=("$python" -m pytest --nbval-lax --nbval-current-env)
    report="$(mktemp)"
    "${notebooks[@]}" notebooks/[0-3]*.ipynb >"$report" 2>&1 &
    beside=$!
    trap 'kill "$beside" 2>/dev/null || true; rm -f "$report"' EXIT
    "$python" -m pytest tests || status=$?
    "${notebooks[@]}" notebooks/[4-9]*.ipynb || status=$?
    wait "$beside" || status=$?
    cat "$report"
    exit "$status"
}

command=quick
case "${1:-}" in
    -h | --help | help) help; exit 0 ;;
    quick | standard | paper | test | lab | bench | figures) command="$1"; shift ;;
    -* | "") ;;
    *) say "unknown command: $1"; help >&2; exit 2 ;;
esac
for argument in "$@"; do # help costs no installation, wherever it stands
    case "$command:$argument" in
        *:--) break ;;
        quick:-h | quick:--help | standard:-h | standard:--help | paper:-h | paper:--help | \
            figures:-h | figures:--help) help; exit 0 ;;
    esac
done

find_environment
case "$command" in
    test) run_tests "$@" ;;
    lab) exec "$python" -m jupyterlab "$@" "$root/notebooks" ;;
    bench) cd "$root" && exec "$python" tests/benchmarks/run.py "$@" ;;
    figures) exec "$python" -m feddiff.experiments.collate --scale "${1:-quick}" ;;
    *) exec "$python" -m feddiff.experiments.batch "$command" "$@" ;;
esac
