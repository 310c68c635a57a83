# backports.sh - packages of this distribution's backports, unpacked into a folder and not installed. Read with `.`; needs no
# root privileges, and apt's own lists and settings stay as they are.
#
# backports_open NAME       looks the archive up; $work is a folder that ends with the script; NAME stands before messages
# backports_package META    the package that a meta package stands for
# backports_unpack PACKAGE...    into $work/root

backports_fail() { echo "$backports_name: $*" >&2; exit 3; }

backports_open() {
    backports_name=$1
    command -v apt-get >/dev/null || backports_fail "no apt"
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
        awk -v name="$codename" '$2 == name { print $1; exit }')
    [ -n "$mirror" ] || backports_fail "apt knows no archive for $codename"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
    chmod 755 "$work"
    echo "deb $mirror $codename-backports main" >"$work/sources.list"
    # Split into words on purpose, here and below.
    backports_apt="-o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists
        -o Dir::State::status=/dev/null -o Dir::Cache=$work/cache -o APT::Sandbox::User=$(id -un) -o Acquire::Retries=2
        -o Acquire::http::Timeout=20"
    apt-get $backports_apt -qq update 2>/dev/null || backports_fail "$mirror does not answer"
}

backports_package() {
    apt-cache $backports_apt depends "$1" 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }'
}

backports_unpack() {
    (cd "$work" && apt-get $backports_apt -qq download "$@" >/dev/null 2>&1) || backports_fail "$* cannot be fetched"
    for archive in "$work"/*.deb; do dpkg -x "$archive" "$work/root"; done
}
