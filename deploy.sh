#!/usr/bin/env bash
# Installs Cryptomind as a systemd service: the binary, a system user, one configuration file and one unit a
# role. Run it again after a build: it changes only what differs and never overwrites a configuration file.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly here
readonly user=cryptomind
readonly installed=/usr/local/bin/cryptomind
readonly config_dir=/etc/cryptomind
readonly state_dir=/var/lib/cryptomind
readonly unit_dir=/etc/systemd/system

usage() {
    cat <<'TEXT'
Installs Cryptomind as a systemd service.

usage: deploy.sh --role coordinator|miner|storage [options]

  --role ROLE      what this machine does; run it once for each role
  --join ADDRESS   miner, storage: the coordinator, cm://<node id>@host:port
  --account ID     miner, storage: the account that earns, cm1…
  --binary FILE    what to install; default: target/release/cryptomind beside this script
  --no-start       install, but leave the service as it is
  --dry-run        print every action and every file, change nothing; needs no root
  --uninstall      stop and remove the service; data, keys and configuration stay
  --help           this text

examples:
  cargo build --release && sudo ./deploy.sh --role coordinator
  sudo ./deploy.sh --role miner --join cm://cmn1…@203.0.113.5:7700 --account cm1…
  ./deploy.sh --role storage --dry-run
  sudo ./deploy.sh --role miner --uninstall
TEXT
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'deploy.sh: %s\n' "$1" >&2
    [[ -z "${2:-}" ]] || printf '  help: %s\n' "$2" >&2
    exit 2
}

# Options set these by their names.
role='' join='' account='' binary="$here/target/release/cryptomind"
dry_run=false uninstall=false start=true changed=false

parse() {
    while (($#)); do
        case "$1" in
        --role | --join | --account | --binary)
            (($# > 1)) || fail "$1 needs a value" "./deploy.sh --help"
            declare -g "${1#--}=$2"
            shift
            ;;
        --no-start) start=false ;;
        --dry-run) dry_run=true ;;
        --uninstall) uninstall=true ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) fail "unknown option $1" "./deploy.sh --help" ;;
        esac
        shift
    done
}

# Values end up in files and messages, so their form is checked first.
check() {
    case "$role" in
    coordinator | miner | storage) ;;
    '') fail "--role is missing" "coordinator, miner or storage" ;;
    *) fail "unknown role $role" "coordinator, miner or storage" ;;
    esac
    if [[ "$role" == coordinator && -n "$join$account" ]]; then
        fail "a coordinator joins nobody" "leave out --join and --account"
    fi
    if [[ -n "$join" && ! "$join" =~ ^cm://cmn1[a-z2-7]+@[][A-Za-z0-9.:-]+:[0-9]+$ ]]; then
        fail "--join $join is no address" "it looks like cm://cmn1…@203.0.113.5:7700; copy all of it"
    fi
    if [[ -n "$account" && ! "$account" =~ ^cm1[a-z2-7]+$ ]]; then
        fail "--account $account is no account id" "it looks like cm1…; see: cryptomind key show"
    fi
    $dry_run && return
    [[ "$(uname -s)" == Linux ]] || fail "this is not Linux" "start the binary by hand: cryptomind --role $role"
    command -v systemctl >/dev/null || fail "systemd is missing" "start the binary by hand: cryptomind --role $role"
    [[ "$(id -u)" == 0 ]] || fail "this needs root" "sudo ./deploy.sh …, or add --dry-run to see what it would do"
    $uninstall || [[ -x "$binary" ]] || fail "there is no binary $binary" "cargo build --release, or name one with --binary"
}

# Runs a command, or says that it would.
act() {
    say "+ $*"
    $dry_run || "$@"
}

# put MODE OWNER FILE: writes standard input to FILE where it differs. Not for a pipe: `changed` would be lost.
put() {
    local mode="$1" owner="$2" file="$3" text
    text="$(cat)"
    if $dry_run; then
        say "+ write $file (mode $mode, $owner):"
        printf '%s\n' "$text" | sed 's/^/    /'
        return
    fi
    if [[ -f "$file" && "$(cat "$file")" == "$text" ]]; then
        say "= $file"
        return
    fi
    say "+ write $file"
    # The new file appears whole or not at all.
    (umask 077 && printf '%s\n' "$text" >"$file.new")
    chown "$owner" "$file.new"
    chmod "$mode" "$file.new"
    mv -f "$file.new" "$file"
    changed=true
}

install_binary() {
    if ! $dry_run && cmp -s "$binary" "$installed"; then
        say "= $installed"
        return
    fi
    act install -m 0755 "$binary" "$installed"
    changed=true
}

install_user() {
    if getent passwd "$user" >/dev/null; then
        say "= user $user"
        return
    fi
    act useradd --system --user-group --home-dir "$state_dir" --no-create-home \
        --shell /usr/sbin/nologin "$user"
}

install_folders() {
    act install -d -m 0755 "$config_dir"
    act install -d -m 0755 "$state_dir"
    act install -d -m 0700 -o "$user" -g "$user" "$state_dir/$role"
}

# The sample with this machine's values in it.
filled_sample() {
    local edits=(-e "s|^#data_dir = .*|data_dir = \"$state_dir/$role\"|")
    [[ -z "$join" ]] || edits+=(-e "s|^#coordinator = .*|coordinator = \"$join\"|")
    [[ -z "$account" ]] || edits+=(-e "s|^#account = .*|account = \"$account\"|")
    sed "${edits[@]}" "$here/config/$role.toml"
}

install_config() {
    local file="$config_dir/$role.toml"
    if [[ -e "$file" ]]; then
        say "= $file (yours: never overwritten)"
        [[ -z "$join$account" ]] || say "  --join and --account are not written into it: edit it where they changed"
        return
    fi
    put 0640 "root:$user" "$file" < <(filled_sample)
}

# Groups that own graphics cards, where this system has them.
device_groups() {
    local group
    for group in video render; do
        if getent group "$group" >/dev/null; then printf '%s ' "$group"; fi
    done
}

unit_sandbox() {
    cat <<'TEXT'
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
UMask=0077
ProtectSystem=strict
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
TEXT
    if [[ "$role" == miner ]]; then
        local groups
        groups="$(device_groups)"
        cat <<'TEXT'
# The idle command is the owner's own program: it may lie in a home folder, compile kernels at run time
# and pin its threads. Graphics cards are devices, so /dev stays.
ProtectHome=read-only
SystemCallFilter=@system-service
TEXT
        [[ -z "$groups" ]] || say "SupplementaryGroups=${groups% }"
    else
        cat <<'TEXT'
ProtectHome=yes
PrivateDevices=yes
ProtectProc=invisible
MemoryDenyWriteExecute=yes
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
TEXT
    fi
}

unit() {
    cat <<TEXT
# Written by deploy.sh, which overwrites it. Put changes into: systemctl edit cryptomind-$role
[Unit]
Description=Cryptomind $role
Documentation=file://$config_dir/$role.toml
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User=$user
Group=$user
ExecStart=$installed --role $role --config $config_dir/$role.toml
WorkingDirectory=$state_dir/$role
Restart=on-failure
RestartSec=2
# 2 is a fault in the configuration: starting again would not mend it.
RestartPreventExitStatus=2
KillMode=mixed
TimeoutStopSec=30
LimitNOFILE=65536
ReadWritePaths=$state_dir/$role
$(unit_sandbox)

[Install]
WantedBy=multi-user.target
TEXT
}

has_coordinator() {
    [[ "$role" == coordinator || -n "$join" ]] && return
    grep -qs '^coordinator = ' "$config_dir/$role.toml"
}

# Says what is not as it must be, before the miner starts; it joins with the report that is kept. Not as root: the key and the
# report are the service's own. Once: later the miner runs, and tests itself when something has changed.
test_miner() {
    [[ "$role" == miner ]] && has_coordinator || return 0
    [[ ! -e "$state_dir/miner/selftest.json" ]] || return 0
    if ! act runuser -u "$user" -- env HOME="$state_dir/miner" "$installed" miner selftest --miner "$config_dir/miner.toml" --seconds 20; then
        say "  the self-test found what the lines marked ✘ say: do that, then: sudo systemctl restart cryptomind-miner"
    fi
}

start_service() {
    act systemctl daemon-reload
    $start || return 0
    if ! has_coordinator; then
        say "  the service is not started: its configuration names no coordinator"
        return
    fi
    act systemctl enable "cryptomind-$role"
    if $changed || $dry_run; then
        act systemctl restart "cryptomind-$role"
    else
        act systemctl start "cryptomind-$role"
    fi
}

next_steps() {
    say ''
    say 'Next:'
    if ! has_coordinator; then
        say "  write coordinator = \"cm://…\" and account = \"cm1…\" into $config_dir/$role.toml, then:"
        say "  sudo systemctl enable --now cryptomind-$role"
    fi
    say "  watch it:      journalctl -fu cryptomind-$role"
    say "  change it:     edit $config_dir/$role.toml, then: sudo systemctl restart cryptomind-$role"
    case "$role" in
    coordinator)
        say '  its address:   it prints cm://… at each start; miners, storage nodes and clients need it'
        say '  firewall:      open UDP port 7700'
        say "  back up:       $state_dir/coordinator, the file node.key above all"
        ;;
    miner)
        say '  let it work:   the owner of the account runs: cryptomind miner approve NODE'
        say "  idle command:  [idle] command = [\"…\"] in $config_dir/miner.toml; it runs as the user $user"
        say '  firewall:      set ring.ports and probe.listen, and open these UDP ports'
        ;;
    storage)
        say '  let it work:   the owner of the account runs: cryptomind miner approve NODE'
        say '  firewall:      open UDP port 7701'
        say "  back up:       $state_dir/storage/node.key"
        ;;
    esac
}

remove() {
    local unit="$unit_dir/cryptomind-$role.service" others
    if [[ -e "$unit" ]] || $dry_run; then
        act systemctl disable --now "cryptomind-$role"
        act rm -f "$unit"
        act systemctl daemon-reload
    else
        say "= there is no $unit"
    fi
    others="$(find "$unit_dir" -maxdepth 1 -name 'cryptomind-*.service' ! -name "cryptomind-$role.service" 2>/dev/null || true)"
    if [[ -z "$others" ]]; then
        act rm -f "$installed"
    else
        say "= $installed (other roles use it)"
    fi
    say ''
    say 'Left as they are:'
    say "  configuration  $config_dir/$role.toml"
    say "  data and keys  $state_dir/$role"
    say "  the user       $user"
    say "To delete them for ever: sudo rm -r $config_dir/$role.toml $state_dir/$role"
}

main() {
    parse "$@"
    check
    if $uninstall; then
        remove
        return
    fi
    install_user
    install_binary
    install_folders
    install_config
    put 0644 root:root "$unit_dir/cryptomind-$role.service" < <(unit)
    test_miner
    start_service
    next_steps
}

main "$@"
