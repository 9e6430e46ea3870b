// Package nodetest stands in for a Metacoin node in tests: a real HTTP server on
// loopback that checks what the node and the ledger behind it check, and that can be
// told to fail. The product does not use it.
package nodetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha512" // crypto.SHA384 and crypto.SHA512
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// Fault is what happens to one request instead of, or beside, being answered.
type Fault struct {
	Status int // answer with it and Body, unprocessed
	Body   string
	Header http.Header // of that answer

	CutBefore bool   // cut the connection, unprocessed
	CutAfter  bool   // process it, then cut the connection without an answer
	Before    func() // called before it is processed
	After     func() // called when it is processed and not answered yet
}

// Wallet is an address of the ledger.
type Wallet struct {
	PublicKey *ecdsa.PublicKey
	PEM       string
	Nonce     string
}

// Node is the server. Its fields must be read and set with Lock held while requests
// may come.
type Node struct {
	sync.Mutex
	*httptest.Server
	Wallets  map[string]*Wallet
	Order    []string       // addresses, as they were made
	Carried  []string       // texts of the transactions that were carried out
	Requests map[string]int // by method and route, whatever became of them

	// Fault decides on the nth request of a route, from 1 on. nil: all are answered.
	Fault func(route string, n int) Fault
}

// New starts a node. Close it.
func New() *Node {
	n := start()
	n.Start()
	return n
}

// NewTLS starts a node with a certificate of its own.
func NewTLS() *Node {
	n := start()
	n.StartTLS()
	return n
}

func start() *Node {
	n := &Node{Wallets: map[string]*Wallet{}, Requests: map[string]int{}}
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(n.serve))
	n.Config.ErrorLog = log.New(io.Discard, "", 0)
	return n
}

// CertificatePEM is the node's own, as PEM.
func (n *Node) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Server.Certificate().Raw})
}

// Add makes an address for a public key, as POST /address does.
func (n *Node) Add(publicKey string) (address string) {
	n.Lock()
	defer n.Unlock()
	_, body := n.register(publicKey)
	return body
}

// Nonce is the present one of an address.
func (n *Node) Nonce(address string) string {
	n.Lock()
	defer n.Unlock()
	return n.Wallets[address].Nonce
}

// Count is how many requests of a route came.
func (n *Node) Count(route string) int {
	n.Lock()
	defer n.Unlock()
	return n.Requests[route]
}

// Done is how many transactions were carried out.
func (n *Node) Done() int {
	n.Lock()
	defer n.Unlock()
	return len(n.Carried)
}

// Addresses is how many addresses there are.
func (n *Node) Addresses() int {
	n.Lock()
	defer n.Unlock()
	return len(n.Order)
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// draw makes a name of random letters and digits, as the chaincode does.
func draw(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[rand.IntN(len(alphabet))]
	}
	return string(b)
}

func validAddress(s string) bool {
	return len(s) == 40 && s[:2] == "MT" && fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(s[2:32]))) == s[32:]
}

// route names what is counted: the method and the first one or two words of the
// path.
func route(r *http.Request) string {
	words := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case words[0] == "nonce":
		return r.Method + " /nonce"
	case len(words) > 2:
		words = words[:2]
	}
	return r.Method + " /" + strings.Join(words, "/")
}

func (n *Node) serve(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 50<<20))
	if err != nil {
		return
	}
	name := route(r)
	n.Lock()
	n.Requests[name]++
	var f Fault
	if n.Fault != nil {
		f = n.Fault(name, n.Requests[name])
	}
	n.Unlock()
	if f.Before != nil {
		f.Before()
	}
	if f.CutBefore {
		panic(http.ErrAbortHandler)
	}
	status, body := f.Status, f.Body
	if status == 0 {
		n.Lock()
		status, body = n.process(r, string(raw))
		n.Unlock()
	}
	if f.After != nil {
		f.After()
	}
	if f.CutAfter {
		panic(http.ErrAbortHandler)
	}
	for k, v := range f.Header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

func (n *Node) process(r *http.Request, raw string) (status int, body string) {
	if r.Method != http.MethodGet && r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return 412, "Parameter from is missing"
	}
	form, err := url.ParseQuery(raw)
	if err != nil {
		return 412, "Parameter from is missing"
	}
	words := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch what := r.Method + " " + strings.Join(words, " "); {
	case what == "POST address":
		return n.register(form.Get("publickey"))
	case what == "POST address bykey":
		return n.byKey(form.Get("publickey"))
	case what == "POST transfer":
		return n.transfer(form)
	case strings.HasPrefix(what, "GET nonce "):
		wallet := n.Wallets[words[1]]
		if wallet == nil {
			return 404, "3090,address not found"
		}
		return 200, wallet.Nonce
	case strings.HasPrefix(what, "PUT token update "):
		return n.tokenUpdate(form, words[2])
	}
	return 404, "Cannot " + r.Method + " " + r.URL.Path
}

// register is POST /address: each call makes a new address.
func (n *Node) register(publicKey string) (int, string) {
	if publicKey == "" {
		return 412, "Parameter publickey is missing"
	}
	block, _ := pem.Decode([]byte(publicKey))
	if block == nil || block.Type != "PUBLIC KEY" {
		return 412, "3103,public key decode error"
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return 412, "3105,public key parsing error"
	}
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return 412, "3106,public key type error"
	}
	if key.Curve == elliptic.P224() {
		return 412, "3102,public key size must be 384 or 521"
	}
	body := draw(30)
	address := fmt.Sprintf("MT%s%08x", body, crc32.ChecksumIEEE([]byte(body)))
	n.Wallets[address] = &Wallet{PublicKey: key, PEM: publicKey, Nonce: draw(40)}
	n.Order = append(n.Order, address)
	return 200, address
}

func (n *Node) byKey(publicKey string) (int, string) {
	var list []string
	for _, a := range n.Order {
		if n.Wallets[a].PEM == publicKey {
			list = append(list, a)
		}
	}
	if list == nil {
		return 404, "Address not found"
	}
	data, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return 200, string(data)
}

var (
	digits = regexp.MustCompile(`^[0-9]+$`)
	amount = regexp.MustCompile(`^[1-9][0-9]{0,98}$`)
)

// transfer is POST /transfer with the checks of node, bridge and chaincode.
func (n *Node) transfer(form url.Values) (int, string) {
	for _, f := range []string{"from", "to", "token", "amount", "checkkey", "signature"} {
		if form.Get(f) == "" {
			return 412, "Parameter " + f + " is missing"
		}
	}
	from, to := strings.TrimSpace(form.Get("from")), strings.TrimSpace(form.Get("to"))
	switch {
	case !validAddress(from) || !validAddress(to):
		return 412, "Parameter to is not Metacoin address"
	case from == to:
		return 412, "3201,from address and to address must be different values"
	case !digits.MatchString(form.Get("token")), !amount.MatchString(form.Get("amount")):
		return 412, "1101,The amount must be an integer"
	case n.Wallets[from] == nil || n.Wallets[to] == nil:
		return 412, "3090,address not found"
	}
	return n.carry(n.Wallets[from], true, form.Get("signature"), from, to, form.Get("token"), form.Get("amount"), form.Get("checkkey"))
}

// tokenUpdate is PUT /token/update/{tkey}, after which the nonce stays as it is.
// The owner of every token is the first address.
func (n *Node) tokenUpdate(form url.Values, key string) (int, string) {
	if len(n.Order) == 0 || form.Get("signature") == "" {
		return 412, "Parameter signature is missing"
	}
	return n.carry(n.Wallets[n.Order[0]], false, form.Get("signature"),
		form.Get("token"), form.Get("url"), form.Get("info"), form.Get("image"), key)
}

// carry checks the one-time key, which is the last value, and the signature over
// the values, and carries the transaction out.
func (n *Node) carry(w *Wallet, renew bool, signature string, values ...string) (int, string) {
	for i := range values {
		values[i] = strings.TrimSpace(values[i])
	}
	if values[len(values)-1] != w.Nonce {
		return 412, "1102,nonce error"
	}
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(sig) == 0 {
		return 412, "2230,signature decode error"
	}
	text := strings.Join(values, "|")
	if !verify(w.PublicKey, text, sig) {
		return 412, "2010,invalid signature"
	}
	if renew {
		w.Nonce = draw(40)
	}
	n.Carried = append(n.Carried, text)
	return 200, fmt.Sprintf("%064x", new(big.Int).SetUint64(rand.Uint64()))
}

// verify tries the hashes in the order of the ledger.
func verify(key *ecdsa.PublicKey, text string, sig []byte) bool {
	for _, hash := range []crypto.Hash{crypto.SHA384, crypto.SHA512, crypto.SHA256} {
		h := hash.New()
		h.Write([]byte(text))
		if ecdsa.VerifyASN1(key, h.Sum(nil), sig) {
			return true
		}
	}
	return false
}
