"""Electrum's part of a round without a network. It uses Electrum as a library, and
works offline. What it prints begins with who says it.

watch RESULT WALLET       makes a watching wallet, a file that Electrum opens, of the
                          answer to a wallet.create; on any network, the others are for
                          demo-offline.sh and on regtest
compare WALLET RESULT     the answer to a wallet.address has the wallet's own addresses
fund WALLET SATOSHI       gives the wallet a coin that never was, for there is no network
pay WALLET ADDRESS SATOSHI PSBT
                          makes a transaction and exports it for whoever has the keys
check WALLET RESULT PSBT SIGNED FINAL
                          SIGNED and FINAL are the transaction of PSBT, signed
"""
import json
import os
import sys
import tempfile

from electrum import bitcoin, constants, ecc, keystore
from electrum.address_synchronizer import TX_HEIGHT_UNCONFIRMED
from electrum.bip32 import BIP32Node
from electrum.simple_config import SimpleConfig
from electrum.storage import WalletStorage
from electrum.transaction import (
    PartialTransaction, PartialTxOutput, Transaction, TxInput, TxOutpoint, TxOutput, tx_from_any)
from electrum.util import create_and_start_event_loop
from electrum.wallet import Wallet
from electrum.wallet_db import WalletDB

constants.set_regtest()
own = tempfile.TemporaryDirectory(prefix="electrum-")
config = SimpleConfig({"electrum_path": own.name, "offline": True})


def say(*words):
    print("Electrum:", *words)


def need(true, what):
    if not true:
        sys.exit("Electrum: NO: " + what)


def answer(path):
    with open(path, "rb") as f:
        return json.load(f)


def opened(path):
    storage = WalletStorage(path)
    return Wallet(WalletDB(storage.read(), manual_upgrades=False), storage, config=config)


def watch(result, path):
    said = answer(result)
    {"main": constants.set_mainnet, "test": constants.set_testnet, "regtest": constants.set_regtest}[said["network"]]()
    need(not os.path.exists(path), f"{path} is there already: give another name")
    account = next(a for a in said["accounts"] if a["script"] == "p2wpkh")
    # Electrum tells the form of the addresses by the letters of the key: a vpub (zpub
    # on the main network) is that of native segregated witness.
    key = BIP32Node.from_xkey(account["xpub"])._replace(xtype="p2wpkh").to_xpub()
    # The origin has to be there, or the transactions would not say whose keys they want.
    db = WalletDB("", manual_upgrades=False)
    db.put("wallet_type", "standard")
    db.put("keystore", {
        "type": "bip32", "xpub": key, "xprv": None, "label": "offline",
        "derivation": account["path"], "root_fingerprint": said["fingerprint"]})
    wallet = Wallet(db, WalletStorage(path), config=config)
    need(wallet.is_watching_only(), "the wallet can sign")
    wallet.synchronize()
    wallet.save_db()
    say("a watching wallet of", key)
    say("its first address is", wallet.get_receiving_addresses()[0])


def compare(path, result):
    wallet = opened(path)
    ours = wallet.get_receiving_addresses()
    for i, entry in enumerate(answer(result)["addresses"]):
        need(entry["address"] == ours[i], f"address {i} is {ours[i]}")
        say("derives the same address", ours[i])


def fund(path, amount):
    wallet = opened(path)
    before = PartialTransaction()
    before._inputs = [TxInput(prevout=TxOutpoint(txid=bytes([1]) * 32, out_idx=0), script_sig=b"")]
    before._outputs = [TxOutput.from_address_and_value(wallet.get_receiving_addresses()[0], int(amount))]
    coin = Transaction(Transaction.serialize_to_network(before, include_sigs=True))
    wallet.adb.receive_tx_callback(coin.txid(), coin, TX_HEIGHT_UNCONFIRMED)
    wallet.save_db()
    say("the wallet has", sum(wallet.get_balance()), "satoshi, in a coin that never was")


def pay(path, address, amount, psbt):
    wallet = opened(path)
    tx = wallet.make_unsigned_transaction(
        coins=wallet.get_spendable_coins(None), fee=500,
        outputs=[PartialTxOutput.from_address_and_value(address, int(amount))])
    need(not tx.is_complete(), "it is signed already")
    tx.add_info_from_wallet(wallet)
    with open(psbt, "wb") as f:
        f.write(tx.serialize_as_bytes(force_psbt=True))
    say("wants to pay", amount, "satoshi to", address)
    say("the fee is", tx.get_fee(), "satoshi, change goes to", next(o.address for o in tx.outputs() if o.is_change))
    say("the transaction will be", tx.txid())


def check(path, result, psbt, signed, final):
    wallet = opened(path)
    asked = tx_from_any(open(psbt, "rb").read())
    tx = tx_from_any(open(signed, "rb").read())
    need(isinstance(tx, PartialTransaction), f"{signed} is no PSBT")
    need(tx.txid() == asked.txid(), "this is another transaction")
    tx.add_info_from_wallet(wallet)
    for i, txin in enumerate(tx.inputs()):
        digest = bitcoin.sha256d(bytes.fromhex(tx.serialize_preimage(i)))
        for key in txin.pubkeys:
            need(key in txin.part_sigs, f"input {i} is not signed")
            sig = ecc.sig_string_from_der_sig(txin.part_sigs[key][:-1])  # without the sighash type
            ecc.ECPubkey(key).verify_message_hash(sig, digest)  # or it raises
            say("the signature of input", i, "is good")
    need(tx.is_complete(), "signatures are missing")
    say("the signed PSBT is complete")
    hexadecimal = open(final).read().strip()
    need(tx.serialize_to_network() == hexadecimal, "finishing the PSBT makes another transaction")
    ready = Transaction(hexadecimal)
    need(ready.is_complete(), "the transaction is not complete")
    need(ready.txid() == asked.txid() == answer(result)["bitcoin"]["txid"], "the txid is another")
    say("finishing it makes the very bytes of", final.rpartition("/")[2])
    say("the transaction is", ready.txid(), "as it was before it was signed")
    need(wallet.adb.add_transaction(ready), "the wallet does not take it")
    wallet.save_db()
    say("the wallet takes it for its own, and has", sum(wallet.get_balance()), "satoshi left")


def main():
    loop, stop, thread = create_and_start_event_loop()
    try:
        {"watch": watch, "compare": compare, "fund": fund, "pay": pay, "check": check}[sys.argv[1]](*sys.argv[2:])
    finally:
        loop.call_soon_threadsafe(stop.set_result, 1)
        thread.join()


main()
