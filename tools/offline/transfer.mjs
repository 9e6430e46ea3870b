// The part of ethers in demo-offline.sh. It has no provider and so no network. DIR is the
// directory that ethers is installed in.
//
// DIR address CREATED LIST     the wallet of LIST has the address of CREATED's public key
// DIR check REQUEST RESULT     RESULT has the transaction that REQUEST asks for, signed
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [dir, what, ...files] = process.argv.slice(2);
const { Transaction, computeAddress, formatEther } = createRequire(dir + "/")("ethers");
const [first, second] = files.map((name) => JSON.parse(readFileSync(name, "utf8")));

const say = (...words) => console.log("ethers:", ...words);
function need(ok, words) {
  if (ok) return;
  console.error("ethers: NO:", words);
  process.exit(1);
}

if (what === "address") {
  const der = Buffer.from(first.public_key.replace(/-----[^-]*-----/g, ""), "base64");
  const address = computeAddress("0x" + der.subarray(-65).toString("hex"));
  const entry = second.wallets.find((w) => w.wallet === first.wallet);
  need(entry?.addresses.ethereum === address, `the public key has the address ${address}`);
  say("derives the same address", address);
} else {
  const asked = first.ethereum;
  const said = second.ethereum;
  const tx = Transaction.from(said.raw); // it recovers the sender from the signature
  need(tx.isSigned(), "it is not signed");
  need(tx.from === said.from && tx.from === asked.from, `it is signed by ${tx.from}`);
  need(tx.hash === said.hash, `the transaction is ${tx.hash}`);
  need(tx.to === asked.to, `it pays to ${tx.to}`);
  for (const [name, ours] of Object.entries({
    chain_id: tx.chainId, nonce: tx.nonce, value: tx.value, gas_limit: tx.gasLimit,
    max_fee_per_gas: tx.maxFeePerGas, max_priority_fee_per_gas: tx.maxPriorityFeePerGas,
  })) {
    need(ours.toString() === asked[name], `${name} is ${ours}`);
  }
  need(tx.data === "0x" && tx.accessList.length === 0, "it does more than to pay");
  say("the signature is that of", tx.from);
  say("it pays", formatEther(tx.value), "to", tx.to, "on chain", tx.chainId.toString() + ", nonce", tx.nonce);
  say("the transaction is", tx.hash);
}
