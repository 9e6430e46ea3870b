#!/usr/bin/env bash
# One round without a network: "make demo-offline" builds the two programs and runs
# this. It plays a connected machine with Electrum and ethers, which has no keys; an
# offline machine, which has them and nothing else; and the stick between the two.
# docs/offline.md tells the same for people.
#
# Everything lies in ./demo-offline, or in the directory given as the first argument. It
# is removed at the start, and kept at the end, so that you can look around in it. BIN
# may name another directory with the two programs.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="${BIN:-$PWD/bin}:$PATH"
top=$PWD
. tools/demo-lib.sh

command -v ssh-keygen >/dev/null || lacks ssh-keygen openssh-client
command -v node >/dev/null || lacks node nodejs
/usr/bin/python3 -c 'import electrum' 2>/dev/null || lacks "Electrum's library" python3-electrum
{ command -v signdropd && command -v signdrop; } >/dev/null || { echo "demo: run make build first" >&2; exit 1; }

# install_ethers puts ethers where the tests of appliance/ethereum have it too, pinned by
# their lock file.
install_ethers() {
	local lock=appliance/ethereum/testdata/ethers new
	ethers=${XDG_CACHE_HOME:-$HOME/.cache}/signdrop-test/ethers-$(cat "$lock/package.json" "$lock/package-lock.json" | sha256sum | cut -c 1-16)
	[ -d "$ethers" ] && return
	command -v npm >/dev/null || lacks npm npm
	mkdir -p "${ethers%/*}"
	new=$(mktemp -d "${ethers%/*}/new-XXXXXX")
	cp "$lock/package.json" "$lock/package-lock.json" "$new"
	(cd "$new" && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=6 --loglevel error) ||
		{ rm -rf "$new"; echo "demo: npm could not install ethers; it takes the network once" >&2; exit 1; }
	mv -T "$new" "$ethers" 2>/dev/null || rm -rf "$new" # another run may have been faster
}
install_ethers

begin "${1:-demo-offline}"
mkdir connected stick offline
: >offline.log

data=offline/data          # the data volume, in the offline machine
kek=file:$PWD/offline/kek  # what its keys are sealed under; on a stick of its own
acme=$data/spool/acme

# Electrum and ethers. -B: Python leaves no __pycache__ behind.
watching=(/usr/bin/python3 -B "$top/tools/offline/watching.py")
transfer=(node "$top/tools/offline/transfer.mjs" "$ethers")

finish() {
	local status=$?
	trap - EXIT
	[ "$status" -eq 0 ] || failed "$status" "$acme/rejected" offline.log
	exit "$status"
}
trap finish EXIT

# pack FILE… is done on the connected machine: sign, and copy to the stick.
pack() {
	local name
	for name; do
		run ssh-keygen -q -Y sign -n request@signdrop -f connected/partner_key "connected/$name"
		run cp "connected/$name" "connected/$name.sig" stick/
	done
}

# once is done on the offline machine: into the inbox, and one run.
once() {
	run mv stick/* "$acme/inbox/"
	run signdropd once --data "$data" --seal "$kek" --log-format json 2>>offline.log
}

# unpack GLOB… takes answers to the stick and from there to the connected machine.
unpack() {
	local glob
	for glob; do
		# shellcheck disable=SC2086 # a pattern
		run mv $acme/outbox/$glob stick/
	done
	run mv stick/* connected/
}

say "1. On the connected machine lies the key that requests are signed with. The offline
   machine gets to know its public half, once, and keeps its own keys sealed."
run ssh-keygen -q -t ed25519 -N '' -C alice@acme -f connected/partner_key
run cp connected/partner_key.pub stick/
echo '$ head -c 32 /dev/urandom >offline/kek'
head -c 32 /dev/urandom >offline/kek
chmod 0400 offline/kek
run signdrop init --data "$data" --seal "$kek" --company acme --signer stick/partner_key.pub
rm stick/*

say "2. Two wallets are asked for. Stick over, one run, stick back."
echo '{"type":"wallet.create","kind":"hd","network":"regtest","reference":"bitcoin, cold"}' >connected/btc.json
echo '{"type":"wallet.create","curve":"secp256k1","reference":"ethereum, cold"}' >connected/eth.json
pack btc.json eth.json
once
unpack 'btc.*' 'eth.*'
btc=$(field wallet connected/btc.result.json)
eth=$(field wallet connected/eth.result.json)

say "3. The public half of the HD wallet makes a watching wallet in Electrum. It sees all
   addresses and can sign nothing."
run "${watching[@]}" watch connected/btc.result.json connected/watching-wallet

say "4. Is it the same wallet? The appliance tells addresses of its own."
echo "{\"type\":\"wallet.address\",\"wallet\":\"$btc\",\"script\":\"p2wpkh\",\"number\":2}" >connected/addresses.json
echo '{"type":"wallet.list","reference":"first list"}' >connected/list.json
pack addresses.json list.json
once
unpack 'addresses.*' 'list.*'
run "${watching[@]}" compare connected/watching-wallet connected/addresses.result.json
run "${transfer[@]}" address connected/eth.result.json connected/list.result.json
from=$(field ethereum connected/list.result.json)

say "5. Two payments are written on the connected machine. There is no network here, so
   the coin is made up. Electrum exports a PSBT; the Ethereum transfer is a request."
run "${watching[@]}" fund connected/watching-wallet 5000000
run "${watching[@]}" pay connected/watching-wallet bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080 1000000 connected/pay.psbt
# The same coin to somebody else: what a thief on the connected machine may try later.
"${watching[@]}" pay connected/watching-wallet bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry 4000000 connected/thief.psbt >/dev/null
cat >connected/transfer.json <<JSON
{"type": "sign", "reference": "payout-0001", "wallet": "$eth",
 "ethereum": {"operation": "eip1559", "chain_id": "1", "nonce": "0", "from": "$from",
  "to": "0x3535353535353535353535353535353535353535", "value": "1000000000000000000",
  "gas_limit": "21000", "max_fee_per_gas": "30000000000", "max_priority_fee_per_gas": "1000000000"}}
JSON
run cat connected/transfer.json
pack pay.psbt transfer.json
say "   On the offline machine a person reads what is asked for, before anything is signed."
run signdrop preview --network regtest stick/pay.psbt stick/transfer.json
once

say "6. Before the stick leaves, a person reads on the offline machine's own screen what
   was signed. What says something else stays there."
run signdrop verify "$acme/outbox/pay.result.json" "$acme/outbox/transfer.result.json"
unpack 'pay*' 'transfer.*'

say "7. The connected machine checks again, now also that it is what it asked for: in
   words, and for programs."
run signdrop verify --request connected/pay.psbt connected/pay-final.txn
run signdrop verify --request connected/transfer.json connected/transfer.result.json
run signdrop verify --json connected/pay.result.json connected/transfer.result.json

say "8. Neither Electrum nor ethers has anything of ours."
run "${watching[@]}" check connected/watching-wallet connected/pay.result.json connected/pay.psbt connected/pay-signed.psbt connected/pay-final.txn
run "${transfer[@]}" check connected/transfer.json connected/transfer.result.json

say "9. The stick comes a second time, with the same files under other names: the same
   answers, byte for byte."
run cp connected/pay.psbt connected/again.psbt
run cp connected/transfer.json connected/repeat.json
pack again.psbt repeat.json
once
unpack 'again*' 'repeat.*'
run cmp connected/pay.result.json connected/again.result.json
run cmp connected/pay-final.txn connected/again-final.txn
run cmp connected/transfer.result.json connected/repeat.result.json

say "10. And a third time, with another payment of the coin that was spent. (The exit code 3
   says that something was refused.)"
pack thief.psbt
status=0
once || status=$?
[ "$status" -eq 3 ] || { echo "demo: the second payment of a coin was not refused" >&2; exit 1; }
run cat "$acme/rejected/thief.reason.json"
grep -q '"code":"nonce-used"' "$acme/rejected/thief.reason.json"
[ ! -e "$acme/outbox/thief.result.json" ]
run signdrop journal verify --data "$data"

say "What was accepted, and by whom:
   signdrop  both answers: signatures, amounts, payees and fees, and that they are what
             was asked for
   Electrum  the addresses; the signed PSBT as complete, each signature in it; and
             pay-final.txn as the transaction $(field txid connected/pay.result.json)
   ethers    the address; and the raw transaction as signed by $from,
             with the hash $(field hash connected/transfer.result.json)
   No network has seen them: the coin was made up. All of it lies in $PWD."
