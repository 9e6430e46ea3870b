// Package testbed makes data volumes for tests and benchmarks, and plays the
// partner: it signs requests and drops them. The product does not use it.
package testbed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"

	"golang.org/x/crypto/ssh"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/setup"
	"signdrop/spool/durable"
)

// Partner is one company's signer.
type Partner struct {
	Company string
	key     ssh.Signer
}

// NewPartner makes a partner with an Ed25519 key that follows from its name, so
// that runs can be repeated.
func NewPartner(company string) *Partner {
	seed := sha256.Sum256([]byte("signdrop testbed " + company))
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return &Partner{Company: company, key: key}
}

// PublicKey is the partner's key as a line of authorized_keys.
func (p *Partner) PublicKey() string {
	return string(ssh.MarshalAuthorizedKey(p.key.PublicKey()))
}

// Named makes a person with a key of its own who signs for a company, or for the
// administrators.
func Named(company, name string) *Partner {
	p := NewPartner(company + " " + name)
	p.Company = company
	return p
}

// Signer is the partner's key for a plan, under its name.
func (p *Partner) Signer(name string) setup.Signer {
	s, err := setup.ReadSigner([]byte(p.PublicKey()), name)
	if err != nil {
		panic(err)
	}
	return s
}

// Sign signs a request as ssh-keygen -Y sign does.
func (p *Partner) Sign(data []byte) []byte { return p.SignAs(data, auth.NamespaceRequest) }

// SignAs is Sign for a namespace.
func (p *Partner) SignAs(data []byte, namespace string) []byte {
	sig, err := auth.SignFile(data, p.key, namespace)
	if err != nil {
		panic(err)
	}
	return sig
}

// Drop puts a request and its signature into the partner's inbox, the signature
// first, as a batch system does that renames into place. Nothing is synced.
func (p *Partner) Drop(root durable.Dir, name string, data []byte) error {
	return p.DropSigned(root, name, data, p.Sign(data))
}

// DropSigned is Drop with a signature made before, nil for none.
func (p *Partner) DropSigned(root durable.Dir, name string, data, sig []byte) error {
	inbox, err := durable.SubPath(root, "spool", p.Company, "inbox")
	if err != nil {
		return err
	}
	defer inbox.Close()
	// The signature when the request is written: one that lies there alone for long is
	// refused.
	if err := durable.WriteNew(inbox, "."+name+".part", 0o600, data); err != nil {
		return err
	}
	if sig != nil {
		if err := durable.WriteNew(inbox, name+".sig", 0o600, sig); err != nil {
			return err
		}
	}
	return inbox.Move("."+name+".part", inbox, name)
}

// Setup makes the data volume's tree, with a company for each partner.
func Setup(root durable.Dir, partners ...*Partner) error {
	for _, p := range partners {
		signer, err := setup.ReadSigner([]byte(p.PublicKey()), p.Company)
		if err != nil {
			return err
		}
		if _, err := setup.Make(root, nil, setup.Plan{Company: p.Company, Signers: []setup.Signer{signer}}); err != nil {
			return err
		}
	}
	return nil
}

// Read returns a file of the volume by its slash-separated path, nil if it is not
// there.
func Read(root durable.Dir, path string) ([]byte, error) {
	parts := strings.Split(path, "/")
	d, err := durable.SubPath(root, parts[:len(parts)-1]...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	data, err := durable.ReadFile(d, parts[len(parts)-1], 1<<30)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Address is a well-formed Metacoin address that follows from a name.
func Address(name string) string {
	sum := sha256.Sum256([]byte(name))
	body := hex.EncodeToString(sum[:15])
	return fmt.Sprintf("MT%s%08x", body, crc32.ChecksumIEEE([]byte(body)))
}

// Nonce is a well-formed one-time key that follows from a name.
func Nonce(name string) string {
	sum := sha256.Sum256([]byte("nonce " + name))
	return hex.EncodeToString(sum[:20])
}

// Transfer is a request that signs a Metacoin transfer.
func Transfer(wallet, reference string) []byte {
	return fmt.Appendf(nil, `{"type":"sign","reference":%q,"wallet":%q,"metacoin":{"operation":"transfer","from":%q,"to":%q,"token":"0","amount":"100000000","nonce":%q}}`+"\n",
		reference, wallet, Address("from"), Address("to"), Nonce(reference))
}

// EthereumTransfer is a request that signs a transfer of Ethereum.
func EthereumTransfer(wallet, reference string, nonce uint64) []byte {
	return fmt.Appendf(nil, `{"type":"sign","reference":%q,"wallet":%q,"ethereum":{"operation":"eip1559","chain_id":"1","nonce":"%d","to":"0x3535353535353535353535353535353535353535","value":"1000000000000000000","gas_limit":"21000","max_fee_per_gas":"30000000000","max_priority_fee_per_gas":"1000000000"}}`+"\n",
		reference, wallet, nonce)
}

// DataRequest is a request that signs a text as it is.
func DataRequest(wallet, reference string) []byte {
	return fmt.Appendf(nil, `{"type":"sign","reference":%q,"wallet":%q,"data":{"text":%q,"hash":"sha256"}}`+"\n", reference, wallet, "text "+reference)
}

// VerifyAnswer checks the signature in an answer on a NIST curve with nothing but
// the standard library. An answer that is a ledger's own is for that to explain.
func VerifyAnswer(a *answer.Answer) error {
	if a.Ledger != "" {
		l := ledgers.Find(a.Ledger)
		if l == nil {
			return fmt.Errorf("the ledger is %q", a.Ledger)
		}
		if f := l.Explain(a); !f.Signed || len(f.Problems) > 0 {
			return fmt.Errorf("the answer is not sound: %q", f.Problems)
		}
		return nil
	}
	block, _ := pem.Decode([]byte(a.PublicKey))
	if block == nil {
		return fmt.Errorf("public_key is not PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("public_key is not an EC key")
	}
	hashes := map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}
	h, ok := hashes[a.Algorithm[strings.LastIndexByte(a.Algorithm, '-')+1:]]
	if !ok {
		return fmt.Errorf("algorithm is %q", a.Algorithm)
	}
	sig, err := base64.StdEncoding.DecodeString(a.Signature)
	if err != nil {
		return err
	}
	hh := h.New()
	hh.Write([]byte(a.Payload))
	if !ecdsa.VerifyASN1(key, hh.Sum(nil), sig) {
		return fmt.Errorf("the signature does not verify")
	}
	return nil
}
