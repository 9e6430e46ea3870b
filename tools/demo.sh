#!/usr/bin/env bash
# One whole round on this machine: "make demo" builds the two programs and runs
# this. It plays both sides: the operator of an appliance, and a partner who has
# nothing but ssh-keygen, mv and openssl.
#
# Everything lies in ./demo, or in the directory given as the first argument. It
# is removed at the start, so that the demo can be run again, and kept at the end,
# so that you can look around in it.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/bin:$PATH"

. tools/demo-lib.sh

command -v ssh-keygen >/dev/null || lacks ssh-keygen openssh-client
command -v openssl >/dev/null || lacks openssl openssl
command -v signdropd >/dev/null || { echo "demo: run make build first" >&2; exit 1; }
begin "${1:-demo}"

data=data                      # the appliance's data volume
acme=$data/spool/acme          # the partner's world: inbox, outbox, rejected
daemon=
: >daemon.log

stop_daemon() {
	[ -n "$daemon" ] || return 0
	kill "$@" "$daemon" 2>/dev/null || true
	wait "$daemon" 2>/dev/null || true
	daemon=
}

finish() {
	local status=$?
	trap - EXIT
	stop_daemon
	[ "$status" -eq 0 ] || failed "$status" "$acme/rejected" daemon.log
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

start_daemon() {
	printf '$ signdropd serve --data %s --allow-plain-keys &\n' "$data"
	local before
	before=$(wc -l <daemon.log)
	signdropd serve --data "$data" --allow-plain-keys --log-format json >>daemon.log 2>&1 &
	daemon=$!
	until_true ready "$before"
}

ready() { tail -n "+$(($1 + 1))" daemon.log | grep -q '"message":"ready"'; }

# until_true COMMAND… waits until the command succeeds, for at most 30 seconds.
until_true() {
	local end=$((SECONDS + 30))
	until "$@"; do
		kill -0 "$daemon" 2>/dev/null || { echo "demo: signdropd has ended" >&2; return 1; }
		[ "$SECONDS" -lt "$end" ] || { echo "demo: waited 30 seconds in vain for: $*" >&2; return 1; }
		sleep 0.02
	done
}

# drop FILE signs a request and moves it into the inbox.
drop() {
	run ssh-keygen -q -Y sign -n request@signdrop -f partner_key "$1"
	run mv "$1.sig" "$1" "$acme/inbox/"
}

# await NAME waits for the answer and fails at once if there is a refusal.
await() {
	until_true verdict "$1"
	[ -e "$acme/outbox/$1.result.json" ] || { echo "demo: $1 was refused" >&2; return 1; }
}
verdict() { [ -e "$acme/outbox/$1.result.json" ] || [ -e "$acme/rejected/$1.reason.json" ]; }

say "1. The partner makes a key. The operator sets up an appliance that knows it."
run ssh-keygen -q -t ed25519 -N '' -C alice@acme -f partner_key
run signdrop init --data "$data" --company acme --signer partner_key.pub

say "2. The appliance runs. (This machine is not a protected guest, so it must be told
   that keys may lie in the clear.)"
start_daemon

say "3. The partner asks for a wallet: a file, its signature, and mv."
echo '{"type":"wallet.create","curve":"P-384","reference":"payouts"}' >wallet.json
run cat wallet.json
drop wallet.json
await wallet
run cat "$acme/outbox/wallet.result.json"
wallet=$(field wallet "$acme/outbox/wallet.result.json")
field public_key "$acme/outbox/wallet.result.json" >wallet.pem

# Metacoin draws an address for each public key that is registered with it. This
# one is made up, with a checksum that fits.
from=MTDEMOdemoDEMOdemoDEMOdemoDEMOde37f35261
to=MTiiiiiiiiiiiiMETACOINiiiiiiiiii79c3496e

say "4. Metacoin has given the wallet an address, which the partner tells. At that moment
   the daemon is killed; what it had begun is finished when it runs again."
echo "{\"type\":\"wallet.bind\",\"wallet\":\"$wallet\",\"address\":\"$from\"}" >bind.json
drop bind.json
run kill -9 "$daemon"
stop_daemon -9
start_daemon
await bind
run cat "$acme/outbox/bind.result.json"

say "5. The partner asks for a transfer of 1 MTC."
cat >pay.json <<JSON
{"type": "sign", "reference": "payout-0001", "wallet": "$wallet",
 "metacoin": {"operation": "transfer", "from": "$from",
  "to": "$to", "token": "0", "amount": "100000000",
  "nonce": "4dTGSyQnlSQTpKbNDBoUkBbkLVa5aU7PtUGsHXnC"}}
JSON
run cat pay.json
cp pay.json pay-again.json
drop pay.json
await pay
run cat "$acme/outbox/pay.result.json"

say "6. The same request once more, under another name: the same answer, byte for byte."
drop pay-again.json
await pay-again
run cmp "$acme/outbox/pay.result.json" "$acme/outbox/pay-again.result.json"

say "7. The daemon is stopped in order. The record of all that was signed is whole."
run kill "$daemon"
stop_daemon
run signdrop journal verify --data "$data"

say "8. Anybody can check the signature, with the key that the partner has kept and with
   nothing of ours. (All of this lies in $PWD.)"
answer=$acme/outbox/pay.result.json
field payload "$answer" >payload
field signature "$answer" | openssl base64 -d -A >signature
run cat payload
echo
run openssl dgst -sha384 -verify wallet.pem -signature signature payload
