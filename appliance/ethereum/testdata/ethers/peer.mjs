// Signs with ethers what it reads, a JSON object a line: {"key": "0x…", "ethereum":
// {…}, "raw": "0x…"}, and writes what the answer of the appliance has to say of it. Without
// a key it only reads.
import { createInterface } from "node:readline";
import {
  Transaction, Wallet, getCreateAddress, hashMessage, TypedDataEncoder,
  verifyMessage, verifyTypedData, verifyAuthorization, recoverAddress,
} from "ethers";

const kinds = { legacy: 0, eip2930: 1, eip1559: 2, eip7702: 4 };

function transaction(wallet, e, raw) {
  const big = (s) => (s === undefined ? undefined : BigInt(s));
  const like = {
    type: kinds[e.operation], chainId: big(e.chain_id), nonce: Number(e.nonce), value: big(e.value),
    gasLimit: big(e.gas_limit), gasPrice: big(e.gas_price), to: e.to ?? null, data: e.data ?? "0x",
    maxFeePerGas: big(e.max_fee_per_gas), maxPriorityFeePerGas: big(e.max_priority_fee_per_gas),
  };
  if (e.access_list) like.accessList = e.access_list.map((a) => ({ address: a.address, storageKeys: a.storage_keys }));
  if (e.authorization_list) {
    like.authorizationList = e.authorization_list.map((a) => ({
      chainId: big(a.chain_id), address: a.address, nonce: big(a.nonce),
      signature: { r: a.r, s: a.s, yParity: Number(a.y_parity) },
    }));
  }
  for (const name in like) if (like[name] === undefined) delete like[name];
  const tx = Transaction.from(like);
  const payload = tx.unsignedSerialized;
  tx.signature = wallet.signingKey.sign(tx.unsignedHash);
  const read = Transaction.from(raw);
  return {
    payload, raw: tx.serialized, hash: read.hash, from: read.from, to: read.to ?? undefined,
    contract: read.to === null ? getCreateAddress(read) : undefined,
    value: read.value.toString(), chain_id: read.chainId.toString(), nonce: read.nonce.toString(),
    r: tx.signature.r, s: tx.signature.s, y_parity: String(read.signature.yParity),
    v: String(read.type === 0 ? read.signature.networkV : read.signature.yParity),
    max_fee: ((read.maxFeePerGas ?? read.gasPrice) * read.gasLimit).toString(),
  };
}

async function answer({ key, ethereum: e, raw, hash, signature }) {
  if (!key) {
    if (!raw) return { from: recoverAddress(hash, signature), hash, signature };
    const tx = Transaction.from(raw);
    return {
      from: tx.from, hash: tx.hash, to: tx.to ?? undefined, value: tx.value.toString(),
      chain_id: tx.chainId.toString(), nonce: tx.nonce.toString(), raw: tx.serialized,
    };
  }
  const wallet = new Wallet(key);
  const from = wallet.address;
  const parts = (sig) => ({ r: sig.r, s: sig.s, y_parity: String(sig.yParity) });
  switch (e.operation) {
    case "authorization": {
      const a = wallet.authorizeSync({ address: e.address, nonce: BigInt(e.nonce), chainId: BigInt(e.chain_id) });
      return { from: verifyAuthorization(a, a.signature), chain_id: BigInt(e.chain_id).toString(), nonce: BigInt(e.nonce).toString(), ...parts(a.signature) };
    }
    case "message": {
      const message = e.text ?? Uint8Array.from(Buffer.from(e.bytes.slice(2), "hex"));
      const signature = wallet.signMessageSync(message);
      return { from: verifyMessage(message, signature), signature, hash: hashMessage(message) };
    }
    case "typed_data": {
      const { domain, message } = e.typed_data;
      const { EIP712Domain, ...types } = e.typed_data.types;
      const signature = await wallet.signTypedData(domain, types, message);
      return { from: verifyTypedData(domain, types, message, signature), signature, hash: TypedDataEncoder.hash(domain, types, message) };
    }
    case "hash": {
      const sig = wallet.signingKey.sign(e.hash);
      return { from: recoverAddress(e.hash, sig), signature: sig.serialized, ...parts(sig) };
    }
  }
  return transaction(wallet, e, raw);
}

for await (const line of createInterface({ input: process.stdin })) {
  let said;
  try {
    said = await answer(JSON.parse(line));
  } catch (err) {
    said = { error: String(err) };
  }
  console.log(JSON.stringify(said));
}
