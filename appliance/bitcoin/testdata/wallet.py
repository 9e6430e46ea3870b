"""Electrum's part in electrum_test.go. It uses Electrum as a library, offline.

make: prints a JSON object with PSBTs of Electrum's own and the keys for them.
finish: reads PSBTs, one in base64 a line, and prints for each the transaction
that Electrum makes of it, or "incomplete".
"""
import base64
import json
import sys

from electrum import bitcoin
from electrum.bip32 import BIP32Node
from electrum.transaction import (
    PartialTransaction, PartialTxInput, PartialTxOutput, Transaction, TxInput, TxOutpoint, TxOutput, multisig_script)

PURPOSE = {"p2pkh": 44, "p2wpkh-p2sh": 49, "p2wpkh": 84, "p2wsh": 48, "p2sh": 45, "p2wsh-p2sh": 48}
KINDS = {"single": ("p2pkh", "p2wpkh-p2sh", "p2wpkh"), "multisig": ("p2sh", "p2wsh", "p2wsh-p2sh")}


def coin(kind, roots, n, value):
    """An input that spends an output of one key, or of 2 of the roots' keys."""
    keys = []
    for root in roots:
        path = [PURPOSE[kind] | 1 << 31, 1 << 31, 1 << 31, 0, n]
        keys.append((root, path, root.subkey_at_private_derivation(path)))
    pubkeys = sorted(k.eckey.get_public_key_bytes(compressed=True) for _, _, k in keys)
    if len(roots) == 1:
        address = bitcoin.pubkey_to_address(kind, pubkeys[0].hex())
    else:
        script = multisig_script([p.hex() for p in pubkeys], 2)
        address = bitcoin.redeem_script_to_address(kind, script)
    before = PartialTransaction()
    before._inputs = [TxInput(prevout=TxOutpoint(txid=bytes([n + 1]) * 32, out_idx=0), script_sig=b"")]
    before._outputs = [TxOutput.from_address_and_value(address, value)]
    raw = Transaction.serialize_to_network(before, include_sigs=True)
    previous = Transaction(raw)
    txin = PartialTxInput(prevout=TxOutpoint(txid=bytes.fromhex(previous.txid()), out_idx=0), nsequence=0xFFFFFFFD)
    txin.utxo = previous
    txin.script_type = kind
    txin.pubkeys = pubkeys
    txin.num_sig = min(2, len(roots))
    for root, path, k in keys:
        txin.bip32_paths[k.eckey.get_public_key_bytes(compressed=True)] = (root.calc_fingerprint_of_this_node(), path)
    if kind == "p2wpkh-p2sh":
        txin.redeem_script = bytes.fromhex(bitcoin.p2wpkh_nested_script(pubkeys[0].hex()))
    if len(roots) > 1:
        script = bytes.fromhex(script)
        if kind == "p2sh":
            txin.redeem_script = script
        else:
            txin.witness_script = script
        if kind == "p2wsh-p2sh":
            txin.redeem_script = bytes.fromhex(bitcoin.p2wsh_nested_script(script.hex()))
    return txin, [{"root": root.calc_fingerprint_of_this_node().hex(), "path": path, "key": k.eckey.get_secret_bytes().hex()}
                  for root, path, k in keys]


def make():
    roots = [BIP32Node.from_rootseed(bytes([i]) * 32, xtype="standard") for i in (1, 2)]
    pay = PartialTxOutput.from_address_and_value("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 195_000)
    out = {}
    for name, who in (("single", roots[:1]), ("multisig", roots)):
        kinds = KINDS[name]
        inputs, keys = [], []
        for n, kind in enumerate(kinds):
            txin, some = coin(kind, who, n, 66_000)
            inputs.append(txin)
            keys += some
        tx = PartialTransaction.from_io(inputs, [pay], locktime=700_000)
        out[name] = {"psbt": base64.b64encode(tx.serialize_as_bytes(force_psbt=True)).decode(), "keys": keys}
    json.dump(out, sys.stdout)


def finish():
    for line in sys.stdin:
        tx = PartialTransaction.from_raw_psbt(line.strip())
        # What Electrum's wallet says of its own coins; nothing of it is signed.
        kinds = KINDS["single" if len(tx.inputs()[0].bip32_paths) == 1 else "multisig"]
        for txin in tx.inputs():
            txin.pubkeys = sorted(txin.bip32_paths)
            txin.num_sig = len(txin.pubkeys)
            txin.script_type = kinds[next(iter(txin.bip32_paths.values()))[1][-1]]
        print(tx.serialize_to_network() if tx.is_complete() else "incomplete")


{"make": make, "finish": finish}[sys.argv[1]]()
