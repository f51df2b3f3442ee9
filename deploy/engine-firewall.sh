#!/bin/sh
# Closes this host, private networks and the cloud's metadata service to engines in Docker.
#
#   engine-firewall.sh apply     sets the rules; applying them twice changes nothing
#   engine-firewall.sh check     exits with 1 and names each rule that is missing
#   engine-firewall.sh remove
#
# It needs root, iptables, and Docker's chain DOCKER-USER. Variables:
#
#   ENGINE_BRIDGES   the bridges of engines' networks. Networks that the service makes have bridges named eh-….
#                    A network that is older or was made by hand has another name: `ip -br link`. Default: eh-+
#   ENGINE_ALLOW     what engines may reach in a closed range: address:port/protocol, for instance the resolver of
#                    /etc/resolv.conf: "10.0.0.2:53/udp 10.0.0.2:53/tcp". Default: nothing
set -eu

ENGINE_BRIDGES=${ENGINE_BRIDGES:-eh-+}
ENGINE_ALLOW=${ENGINE_ALLOW:-}
# "This" network, private, shared (carriers), loopback, link-local (metadata), protocol assignments, benchmarks,
# multicast, reserved.
CLOSED_V4="0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.168.0.0/16 198.18.0.0/15 224.0.0.0/4 240.0.0.0/4"
CLOSED_V6="::/127 ::ffff:0:0/96 64:ff9b::/96 fc00::/7 fe80::/10 ff00::/8"
# Packets that the host forwards, and packets to the host itself.
OUT=ENGINEHOUSE-OUT
HOST=ENGINEHOUSE-HOST

# The address in each table, and the chain that Docker leaves to its users. Docker makes none for IPv6 by default.
forward_chain() { if [ "$1" = iptables ]; then echo DOCKER-USER; else echo FORWARD; fi; }
closed() { if [ "$1" = iptables ]; then echo "$CLOSED_V4"; else echo "$CLOSED_V6"; fi; }

tables() {
  echo iptables
  if command -v ip6tables >/dev/null && ip6tables -w -S INPUT >/dev/null 2>&1; then echo ip6tables; fi
}

# The answers to the service's own calls pass, and so does what ENGINE_ALLOW names.
rules() {
  echo "*filter"
  echo ":$OUT - [0:0]"
  echo ":$HOST - [0:0]"
  for chain in "$OUT" "$HOST"; do
    echo "-A $chain -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    if [ "$1" = ip6tables ]; then
      echo "-A $chain -p ipv6-icmp -j RETURN"
    else
      for allowed in $ENGINE_ALLOW; do
        protocol=${allowed##*/} address=${allowed%/*}
        echo "-A $chain -d ${address%:*} -p $protocol --dport ${address##*:} -j RETURN"
      done
    fi
  done
  for range in $(closed "$1"); do echo "-A $OUT -d $range -j REJECT"; done
  echo "-A $HOST -j REJECT"
  echo COMMIT
}

# Jumps to a chain of ours from bridges that are no longer named.
stale_jumps() {
  "$1" -w -S "$2" | while read -r _ chain _ bridge _ target; do
    [ "$target" = "$3" ] || continue
    for named in $ENGINE_BRIDGES; do [ "$named" = "$bridge" ] && continue 2; done
    echo "$chain -i $bridge -j $target"
  done
}

apply() {
  for table in $(tables); do
    # One commit fills both chains, so that there is no moment without rules.
    rules "$table" | "$table-restore" -w --noflush
    for pair in "$(forward_chain "$table") $OUT" "INPUT $HOST"; do
      from=${pair% *} to=${pair#* }
      for bridge in $ENGINE_BRIDGES; do
        "$table" -w -C "$from" -i "$bridge" -j "$to" 2>/dev/null || "$table" -w -I "$from" -i "$bridge" -j "$to"
      done
      stale_jumps "$table" "$from" "$to" | while read -r rule; do
        # shellcheck disable=SC2086 -- the rule is several words
        "$table" -w -D $rule
      done
    done
  done
}

remove() {
  ENGINE_BRIDGES=
  for table in $(tables); do
    for pair in "$(forward_chain "$table") $OUT" "INPUT $HOST"; do
      from=${pair% *} to=${pair#* }
      stale_jumps "$table" "$from" "$to" | while read -r rule; do
        # shellcheck disable=SC2086 -- the rule is several words
        "$table" -w -D $rule
      done
      "$table" -w -F "$to" 2>/dev/null || continue
      "$table" -w -X "$to"
    done
  done
}

check() {
  missing=0
  for table in $(tables); do
    for pair in "$(forward_chain "$table") $OUT" "INPUT $HOST"; do
      from=${pair% *} to=${pair#* }
      for bridge in $ENGINE_BRIDGES; do
        "$table" -w -C "$from" -i "$bridge" -j "$to" 2>/dev/null && continue
        echo "missing: $table -I $from -i $bridge -j $to" >&2
        missing=1
      done
      wanted=$(rules "$table" | grep -c "^-A $to ")
      found=$("$table" -w -S "$to" 2>/dev/null | grep -c "^-A $to " || true)
      [ "$found" -eq "$wanted" ] && continue
      echo "missing: $table has $found of the $wanted rules of the chain $to" >&2
      missing=1
    done
  done
  return $missing
}

case "${1:-}" in
  apply) apply ;;
  remove) remove ;;
  check) check ;;
  *)
    echo "usage: $0 apply|check|remove" >&2
    exit 2
    ;;
esac
