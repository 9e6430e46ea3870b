package courier

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/answer"
	"signdrop/appliance/metacoin"
	"signdrop/tools/signdrop/courier/nodetest"
)

// Every operation that the node has a route for is either one that renews the
// nonce, and may be sent again in doubt, or one that does not.
func TestOperationsAreKnown(t *testing.T) {
	n := map[string]bool{}
	for name := range operations() {
		n[name] = true
		if renewing[name] == once[name] {
			t.Errorf("%s must be in one of the two lists", name)
		}
	}
	for _, list := range []map[string]bool{renewing, once} {
		for name := range list {
			if !n[name] {
				t.Errorf("%s is no operation with a route", name)
			}
		}
	}
}

// scene is an outbox, a state directory and a node.
type scene struct {
	*testing.T
	dir    string
	node   *nodetest.Node
	key    *ecdsa.PrivateKey
	pem    string
	wallet string
	from   string
	to     string
	events []Event
	bound  map[string]string
	n      int

	change func(*Config)
	tell   func(Event)
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{T: t, dir: t.TempDir(), node: nodetest.New(), wallet: "W_0123456789abcdef0123456789abcd", bound: map[string]string{}}
	t.Cleanup(s.node.Close)
	for _, d := range []string{"outbox", "done"} {
		s.ok(os.Mkdir(filepath.Join(s.dir, d), 0o700))
	}
	s.key, s.pem = newKey(t)
	_, other := newKey(t)
	s.from, s.to = s.node.Add(s.pem), s.node.Add(other)
	return s
}

func newKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (s *scene) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) fault(f func(route string, n int) nodetest.Fault) {
	s.node.Lock()
	defer s.node.Unlock()
	s.node.Fault = f
	s.node.Requests = map[string]int{}
}

func (s *scene) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *scene) put(name string, data []byte) {
	s.Helper()
	s.ok(os.WriteFile(s.path("outbox", name), data, 0o600))
}

func (s *scene) head(line int) answer.Head {
	s.n++
	return answer.Head{Line: line, Request: sha256.Sum256([]byte(fmt.Sprint(s.n)))}
}

// signed is the answer for an operation, as the appliance writes it.
func (s *scene) signed(line int, request string) []byte {
	s.Helper()
	tx, r := metacoin.Parse([]byte(request))
	if r != nil {
		s.Fatal(r)
	}
	sum := sha512.Sum384([]byte(tx.Text()))
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
	s.ok(err)
	b64 := base64.StdEncoding.EncodeToString(sig)
	return (&answer.Signed{
		Head: s.head(line), Wallet: s.wallet, PublicKey: s.pem, Algorithm: "ecdsa-p384-sha384", Operation: tx.Operation(),
		Payload: tx.Text(), Signature: b64, NotCovered: tx.NotCovered(), AlsoMeans: tx.AlsoMeans(), Submit: tx.Submit(b64).AppendJSON(nil),
	}).Append(nil)
}

func (s *scene) transfer(line int) []byte {
	s.Helper()
	return s.signed(line, fmt.Sprintf(`{"operation":"transfer","from":%q,"to":%q,"token":"0","amount":"7","memo":"a+b c&d=é","nonce":%q}`, s.from, s.to, s.node.Nonce(s.from)))
}

// tokenUpdate leaves the nonce as it is.
func (s *scene) tokenUpdate() []byte {
	s.Helper()
	return s.signed(0, fmt.Sprintf(`{"operation":"token_update","token":"1","url":"https://example.org/","info":"x","image":"https://example.org/a.png","nonce":%q}`, s.node.Nonce(s.from)))
}

func (s *scene) created(line int, wallet, key string) []byte {
	w := answer.Wallet{Head: s.head(line), Wallet: wallet, Curve: "P-384", PublicKey: key}
	form, err := json.Marshal(map[string]string{"publickey": key})
	s.ok(err)
	w.Submit = fmt.Appendf(nil, `{"method":"POST","path":"/address","form":%s}`, form)
	return w.AppendCreated(nil)
}

// run is one run until nothing is left.
func (s *scene) run() error {
	s.Helper()
	s.events = nil
	node, err := NewNode(NodeOptions{URL: s.node.URL, Timeout: time.Minute})
	s.ok(err)
	cfg := Config{
		Outbox: s.path("outbox"), State: s.path("state"), Node: node, Once: true, Poll: 5 * time.Millisecond,
		RetryFor: time.Minute, Backoff: time.Millisecond, Settle: time.Millisecond,
		Bind: func(name string, request []byte) error {
			if old, there := s.bound[name]; there && old != string(request) {
				return errors.New("another request waits")
			}
			s.bound[name] = string(request)
			return nil
		},
		Tell: func(e Event) {
			s.events = append(s.events, e)
			if s.tell != nil {
				s.tell(e)
			}
		},
	}
	if s.change != nil {
		s.change(&cfg)
	}
	ctx, cancel := context.WithTimeout(s.Context(), 2*time.Minute)
	defer cancel()
	_, err = Run(ctx, cfg)
	return err
}

// verdicts are those of a run, without the attempts between.
func (s *scene) verdicts() (list []Verdict) {
	for _, e := range s.events {
		if e.Verdict != Trying {
			list = append(list, e.Verdict)
		}
	}
	return list
}

// want runs and wants these verdicts.
func (s *scene) want(verdicts ...Verdict) {
	s.Helper()
	s.ok(s.run())
	if got := s.verdicts(); !slices.Equal(got, verdicts) {
		s.Fatalf("the verdicts are %q, want %q: %+v", got, verdicts, s.events)
	}
}

func (s *scene) carried(n int) {
	s.Helper()
	if got := s.node.Done(); got != n {
		s.Fatalf("the ledger carried out %d transactions, want %d", got, n)
	}
}

func (s *scene) record(name string) *Record {
	s.Helper()
	data, err := os.ReadFile(s.path("state", name))
	s.ok(err)
	r, err := parseRecord(data)
	s.ok(err)
	return r
}

func TestTransferOnce(t *testing.T) {
	s := newScene(t)
	s.put("pay.result.json", s.transfer(0))
	s.want(Sent)
	s.carried(1)
	if r := s.record("pay.node.json"); r.State != Accepted || r.Status != 200 || r.Body != r.TxID || r.Time.IsZero() {
		t.Errorf("the record is %+v", r)
	}
	// The same outbox again, and the same answer under another name.
	s.want()
	data, err := os.ReadFile(s.path("outbox", "pay.result.json"))
	s.ok(err)
	s.put("again.result.json", data)
	s.want()
	if n := s.node.Count("POST /transfer"); n != 1 {
		t.Errorf("%d transfers were sent", n)
	}
}

// TestTwins: two files with one request in one look at the outbox.
func TestTwins(t *testing.T) {
	s := newScene(t)
	data := s.transfer(0)
	s.put("a.result.json", data)
	s.put("b.result.json", data)
	s.want(Sent)
	if n := s.node.Count("POST /transfer"); n != 1 {
		t.Errorf("%d transfers were sent", n)
	}
	if a, b := s.record("a.node.json"), s.record("b.node.json"); *a != *b {
		t.Errorf("%+v and %+v differ", a, b)
	}
}

func TestFaults(t *testing.T) {
	status := func(code int, body string) nodetest.Fault { return nodetest.Fault{Status: code, Body: body} }
	for _, c := range []struct {
		name    string
		fault   nodetest.Fault // of the first call
		verdict Verdict
		posts   int
		carried int
	}{
		{"503", status(503, "busy"), Sent, 2, 1},
		{"502", status(502, ""), Sent, 2, 1},
		{"429", status(429, ""), Sent, 2, 1},
		{"cut before", nodetest.Fault{CutBefore: true}, Sent, 2, 1},
		{"412 of the bridge", status(412, "MTC Server connection error"), Sent, 2, 1},
		// Carried out and not answered: the second sending is refused for its nonce,
		// and nobody knows that it was the first that has used it up.
		{"cut after", nodetest.Fault{CutAfter: true}, Doubtful, 2, 1},
		{"ledger refuses", status(412, "5000,balance"), NodeSaysNo, 1, 0},
		{"404", status(404, "not found"), NodeSaysNo, 1, 0},
		{"some page", status(200, "<html>welcome</html>"), Doubtful, 1, 0},
		{"too long", status(200, strings.Repeat("x", maxBody+1)), Sent, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			s.fault(func(_ string, n int) nodetest.Fault {
				if n == 1 {
					return c.fault
				}
				return nodetest.Fault{}
			})
			s.put("pay.result.json", s.transfer(0))
			s.want(c.verdict)
			s.carried(c.carried)
			s.want() // settled for good
			if n := s.node.Count("POST /transfer"); n != c.posts {
				t.Errorf("%d transfers were sent, want %d", n, c.posts)
			}
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	s := newScene(t)
	s.fault(func(_ string, n int) nodetest.Fault {
		if n == 1 {
			return nodetest.Fault{Status: 503, Header: http.Header{"Retry-After": {"1"}}}
		}
		return nodetest.Fault{}
	})
	s.put("pay.result.json", s.transfer(0))
	start := time.Now()
	s.want(Sent)
	if took := time.Since(start); took < time.Second {
		t.Errorf("it was sent again after %v", took)
	}
	s.carried(1)
}

// TestNoSecondSending: a call whose nonce stays must not be sent again when nobody
// knows what became of it.
func TestNoSecondSending(t *testing.T) {
	for name, f := range map[string]nodetest.Fault{
		"cut before": {CutBefore: true}, "cut after": {CutAfter: true}, "503": {Status: 503}, "bridge": {Status: 412, Body: "Request job wait timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.fault(func(_ string, n int) nodetest.Fault { return f })
			s.put("t.result.json", s.tokenUpdate())
			s.want(Doubtful)
			s.fault(nil)
			s.want()
			if n := s.node.Count("PUT /token/update"); n != 0 {
				t.Errorf("%d more were sent", n)
			}
		})
	}
	// What the node has surely not looked at may be sent again.
	t.Run("429", func(t *testing.T) {
		s := newScene(t)
		s.fault(func(_ string, n int) nodetest.Fault {
			if n < 3 {
				return nodetest.Fault{Status: 429}
			}
			return nodetest.Fault{}
		})
		s.put("t.result.json", s.tokenUpdate())
		s.want(Sent)
		s.carried(1)
	})
}

// TestNodeIsDown: no connection, so nothing was sent; the run gives up, and the next
// one sends it, whatever the operation.
func TestNodeIsDown(t *testing.T) {
	s := newScene(t)
	s.put("pay.result.json", s.transfer(0))
	s.put("t.result.json", s.tokenUpdate())
	url := s.node.URL
	s.change = func(c *Config) {
		c.RetryFor = 20 * time.Millisecond
		c.Node.client.Transport.(*http.Transport).Proxy = nil
		c.Node.base.Host = "127.0.0.1:1" // nobody listens on tcpmux
	}
	// The state directory knows the node by this name.
	s.node.URL = "http://127.0.0.1:1"
	s.want(Left, Left)
	s.node.URL = url
	s.change = nil
	s.ok(os.WriteFile(s.path("state", "courier.json"), fmt.Appendf(nil, `{"format":1,"node":%q}`, url), 0o600))
	s.want(Sent, NodeSaysNo) // the transfer has renewed the nonce of the other
	s.carried(1)
}

// TestOtherNode: what one ledger has done says nothing about another.
func TestOtherNode(t *testing.T) {
	s := newScene(t)
	s.put("pay.result.json", s.transfer(0))
	s.want(Sent)
	s.node.URL = "http://127.0.0.1:1"
	if err := s.run(); err == nil || !strings.Contains(err.Error(), "take another --state") {
		t.Errorf("another node: %v", err)
	}
}

func TestRegister(t *testing.T) {
	for name, first := range map[string]nodetest.Fault{
		"well": {}, "503": {Status: 503}, "429": {Status: 429}, "cut before": {CutBefore: true}, "cut after": {CutAfter: true},
		"some page": {Status: 200, Body: "<html>"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			_, key := newKey(t)
			s.fault(func(route string, n int) nodetest.Fault {
				if route == "POST /address" && n == 1 {
					return first
				}
				return nodetest.Fault{}
			})
			s.put("w.result.json", s.created(0, s.wallet, key))
			s.want(Registered, Bound)
			if n := s.node.Addresses(); n != 3 {
				t.Errorf("there are %d addresses, want 3", n)
			}
			want := fmt.Sprintf(`{"type":"wallet.bind","wallet":%q,"address":%q}`+"\n", s.wallet, s.events[len(s.events)-2].Detail)
			if got := s.bound["bind-"+s.wallet+".json"]; got != want {
				t.Errorf("the request to bind is %s, want %s", got, want)
			}
			s.want()
		})
	}
}

// TestRegisterSettles: a call without an answer is waited for before the key is sent
// again.
func TestRegisterSettles(t *testing.T) {
	s := newScene(t)
	_, key := newKey(t)
	s.change = func(c *Config) { c.Settle = time.Hour }
	asked := 0
	s.fault(func(route string, n int) nodetest.Fault {
		switch {
		case route == "POST /address":
			return nodetest.Fault{CutBefore: true}
		case route == "POST /address/bykey" && n == 4:
			// Its block has come.
			return nodetest.Fault{Before: func() { s.node.Add(key) }}
		}
		asked++
		return nodetest.Fault{}
	})
	s.put("w.result.json", s.created(0, s.wallet, key))
	s.want(Registered, Bound)
	if n := s.node.Count("POST /address"); n != 1 || asked == 0 {
		t.Errorf("the key was sent %d times", n)
	}
}

// TestBindLater: an address that was registered without an inbox is bound when there
// is one.
func TestBindLater(t *testing.T) {
	s := newScene(t)
	_, key := newKey(t)
	s.put("w.result.json", s.created(0, s.wallet, key))
	s.change = func(c *Config) { c.Bind = nil }
	s.want(Registered)
	s.change = nil
	s.want(Bound)
	s.want()
}

func TestNotToBeTrusted(t *testing.T) {
	s := newScene(t)
	good := string(s.transfer(0))
	_, other := newKey(t)
	otherPEM, err := json.Marshal(other)
	s.ok(err)
	ourPEM, err := json.Marshal(s.pem)
	s.ok(err)
	swap := func(text, old, new string) []byte {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("%s has no %s", text, old)
		}
		return []byte(strings.Replace(text, old, new, 1))
	}
	nonce := s.node.Nonce(s.from)
	for name, data := range map[string][]byte{
		"payload":   swap(good, "|7|", "|8|"),
		"amount":    swap(good, `"amount":"7"`, `"amount":"8"`),
		"to":        swap(good, `"to":"`+s.to, `"to":"`+s.from),
		"nonce":     swap(good, `"checkkey":"`+nonce, `"checkkey":"`+s.to),
		"key":       swap(good, string(ourPEM), string(otherPEM)),
		"path":      swap(good, `"path":"/transfer"`, `"path":"/multitransfer"`),
		"elsewhere": swap(good, `"path":"/transfer"`, `"path":"//evil.example/transfer"`),
		"up":        swap(good, `"path":"/transfer"`, `"path":"/x/../transfer"`),
		"query":     swap(good, `"path":"/transfer"`, `"path":"/transfer?x"`),
		"method":    swap(good, `"method":"POST"`, `"method":"GET"`),
		"operation": swap(good, `"operation":"transfer"`, `"operation":"multitransfer"`),
		"wallet":    swap(good, s.wallet, "../../x"),
		"digest":    swap(good, `"request_sha256":"`, `"request_sha256":"../`),
		"register":  swap(string(s.created(0, s.wallet, s.pem)), `"publickey":`+string(ourPEM), `"publickey":`+string(otherPEM)),
		"addinfo":   swap(string(s.created(0, s.wallet, s.pem)), `"form":{`, `"form":{"addinfo":"x",`),
	} {
		s.put(name+".result.json", data)
		s.want(Forged)
		s.ok(os.Remove(s.path("outbox", name+".result.json")))
	}
	for name, data := range map[string][]byte{
		"torn":    []byte(good[:len(good)-1]),
		"half":    []byte(good[:len(good)/2] + "\n"),
		"empty":   {},
		"two":     []byte(good + good),
		"unknown": swap(good, `"verdict"`, `"surprise":1,"verdict"`),
		"twice":   swap(good, `"verdict"`, `"type":"sign.result","verdict"`),
	} {
		s.put(name+".result.json", data)
		s.want(Failed)
		s.ok(os.Remove(s.path("outbox", name+".result.json")))
	}
	s.ok(os.WriteFile(s.path("secret"), []byte(good), 0o600))
	s.ok(os.Symlink(s.path("secret"), s.path("outbox", "link.result.json")))
	s.want(Failed)
	s.carried(0)
	if list, err := os.ReadDir(s.path("state", "calls")); err != nil || len(list) != 0 {
		t.Errorf("the state has %v, %v", list, err)
	}
	if s.node.Count("POST /transfer")+s.node.Count("POST /address") != 0 {
		t.Error("something was sent")
	}
}

// TestAnotherKey: a wallet has one key. What comes later under its id is held to
// the first.
func TestAnotherKey(t *testing.T) {
	s := newScene(t)
	_, key := newKey(t)
	s.put("w.result.json", s.created(0, s.wallet, key))
	s.want(Registered, Bound)
	_, other := newKey(t)
	s.put("forged.result.json", s.created(0, s.wallet, other))
	s.want(Forged)
	s.ok(os.Remove(s.path("outbox", "forged.result.json")))
	bind := answer.Wallet{Head: s.head(0), Wallet: s.wallet, Address: s.to, Curve: "P-384", PublicKey: key}
	s.put("bind.result.json", bind.AppendBound(nil))
	s.want(Forged)
	if !strings.Contains(s.events[0].Detail, "was bound to "+s.to) {
		t.Errorf("it says %q", s.events[0].Detail)
	}
	// The appliance's own answer shows that the first one was altered.
	bind.PublicKey = other
	s.put("bind.result.json", bind.AppendBound(nil))
	s.want(Forged)
	if !strings.Contains(s.events[0].Detail, "send nothing to "+s.node.Order[2]) {
		t.Errorf("it says %q", s.events[0].Detail)
	}
}

func TestPassedOver(t *testing.T) {
	s := newScene(t)
	good := string(s.transfer(0))
	i := strings.Index(good, `,"submit"`)
	s.put("data.result.json", []byte(good[:i]+"}\n"))
	s.want(Passed)
	// Answers of kinds that are no calls, with files beside them or not.
	s.put("coin-signed.psbt", []byte("signed"))
	s.put("coin.result.json", []byte(`{"type":"sign.result","verdict":"signed","operation":"payment","ledger":"bitcoin","bitcoin":{},"files":[{"ending":"-signed.psbt","size":6,"sha256":"00"}]}`+"\n"))
	s.want(Passed, Passed)
	s.put("list.result.json", []byte(`{"type":"wallet.list.result","verdict":"listed","wallets":[]}`+"\n"))
	s.want(Passed, Passed, Passed)
	s.put("half.result.json", []byte(strings.TrimSuffix(good, "}}\n")+`,"missing":["buyerNonce"]}}`+"\n"))
	s.ok(s.run())
	if !strings.Contains(fmt.Sprint(s.events), "buyerNonce") {
		t.Errorf("it says %+v", s.events)
	}
	s.carried(0)
}

func TestBatch(t *testing.T) {
	s := newScene(t)
	_, key := newKey(t)
	head := answer.AppendBatch(nil, [32]byte{1}, 4, 1)
	pay := s.transfer(2)
	refusal := fmt.Appendf(nil, `{"type":"refusal","line":3,"verdict":"refused","request_sha256":%q,"code":"nonce-used","message":"m","retry":false}`+"\n", hex.EncodeToString(make([]byte, 32)))
	create := s.created(4, s.wallet, s.pem)
	other := s.created(5, "W_ffffffffffffffffffffffffffffff", key)
	whole := slices.Concat(head, pay, refusal, create, other)
	// A line is missing, or the last ones: nothing is sent.
	s.put("run.result.jsonl", slices.Concat(head, pay, create, other))
	s.want(Failed)
	s.put("run.result.jsonl", whole[:len(whole)-len(other)])
	s.want(Failed)
	s.carried(0)
	s.put("run.result.jsonl", whole)
	s.change = func(c *Config) { c.Done = s.path("done") }
	s.want(Passed, Sent, Registered, Bound, Registered, Bound)
	s.carried(1)
	data, err := os.ReadFile(s.path("state", "run.node.jsonl"))
	s.ok(err)
	if n := strings.Count(string(data), `"state":"accepted"`); n != 3 {
		t.Errorf("the records are %s", data)
	}
	if _, err := os.Stat(s.path("done", "run.result.jsonl")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.path("outbox", "run.result.jsonl")); err == nil {
		t.Error("the answer is in the outbox still")
	}
}

// TestDamagedState: a record that cannot be read is not taken for none.
func TestDamagedState(t *testing.T) {
	s := newScene(t)
	s.put("pay.result.json", s.transfer(0))
	s.want(Sent)
	list, err := filepath.Glob(s.path("state", "calls", "*.json"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	for _, text := range []string{"", "{}", "{", `{"format":9}`} {
		s.ok(os.WriteFile(list[0], []byte(text), 0o600))
		if err := s.run(); err == nil || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("with %q: %v", text, err)
		}
	}
	if n := s.node.Count("POST /transfer"); n != 1 {
		t.Errorf("%d transfers were sent", n)
	}
}

// TestRedirect: nobody but the node that was named gets the call.
func TestRedirect(t *testing.T) {
	s := newScene(t)
	other := nodetest.New()
	defer other.Close()
	s.fault(func(string, int) nodetest.Fault {
		return nodetest.Fault{Status: 307, Header: http.Header{"Location": {other.URL + "/transfer"}}}
	})
	s.put("pay.result.json", s.transfer(0))
	if err := s.run(); err == nil || !strings.Contains(err.Error(), "307") {
		t.Errorf("a redirect: %v", err)
	}
	if n := other.Count("POST /transfer"); n != 0 {
		t.Error("it was followed")
	}
	s.fault(nil)
	s.want(Sent)
	s.carried(1)
}

// TestWatching: answers that come while it runs are sent, one that is still being
// written is waited for, and the signal ends it between two calls.
func TestWatching(t *testing.T) {
	s := newScene(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	data := s.transfer(0)
	s.put("pay.result.json", data[:100])
	s.change = func(c *Config) {
		c.Once, c.RetryFor = false, 0
		tell := c.Tell
		c.Tell = func(e Event) {
			tell(e)
			switch e.Verdict {
			case Failed: // it has stayed as it was
				s.put("pay.result.json", data)
			case Sent:
				cancel()
			}
		}
		cfg := *c
		_, err := Run(ctx, cfg)
		s.ok(err)
		c.Once = true // what run does then finds all done
	}
	s.ok(s.run())
	if got := s.verdicts(); !slices.Equal(got, []Verdict{Failed, Sent}) {
		t.Errorf("the verdicts are %q", got)
	}
	s.carried(1)
}

// TestStopWaits: the signal that ends a run does not cut the call under way, so that
// its answer is known.
func TestStopWaits(t *testing.T) {
	s := newScene(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.fault(func(string, int) nodetest.Fault { return nodetest.Fault{After: cancel} })
	s.put("pay.result.json", s.transfer(0))
	s.change = func(c *Config) {
		_, err := Run(ctx, *c)
		s.ok(err)
	}
	s.want(Sent)
	if n := s.node.Count("POST /transfer"); n != 1 {
		t.Errorf("%d transfers were sent", n)
	}
}

func TestNewNode(t *testing.T) {
	for _, c := range []struct {
		o    NodeOptions
		fine bool
	}{
		{NodeOptions{URL: "https://node.example:20923"}, true},
		{NodeOptions{URL: "https://node.example/api/"}, true},
		{NodeOptions{URL: "http://127.0.0.1:1"}, true},
		{NodeOptions{URL: "http://[::1]:1"}, true},
		{NodeOptions{URL: "http://localhost"}, true},
		{NodeOptions{URL: "http://node.example"}, false},
		{NodeOptions{URL: "http://127.0.0.1.node.example"}, false},
		{NodeOptions{URL: "http://node.example", InsecureHTTP: true}, true},
		{NodeOptions{URL: "http://127.0.0.1:1", Proxy: "http://proxy.example"}, false},
		{NodeOptions{URL: "https://node.example", Proxy: "http://u:secret@proxy.example"}, true},
		{NodeOptions{URL: "https://node.example", Proxy: "ftp://u:secret@proxy.example"}, false},
		{NodeOptions{URL: "https://node.example", Proxy: "http://u:secret@[proxy"}, false},
		{NodeOptions{URL: "https://u:secret@node.example"}, false},
		{NodeOptions{URL: "https://node.example/?x=secret"}, false},
		{NodeOptions{URL: "ftp://node.example"}, false},
		{NodeOptions{URL: "node.example"}, false},
		{NodeOptions{URL: ""}, false},
		{NodeOptions{URL: "https://node.example", CAFile: "/dev/null"}, false},
	} {
		_, err := NewNode(c.o)
		if (err == nil) != c.fine {
			t.Errorf("%+v: %v", c.o, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}

// TestStateFails: what cannot be noted is not sent, and what was sent and cannot be
// noted is in doubt afterwards, as after a crash between answer and record.
func TestStateFails(t *testing.T) {
	s := newScene(t)
	_, key := newKey(t)
	away := func() { s.ok(os.Rename(s.path("state", "calls"), s.path("calls"))) }
	back := func() { s.ok(os.Rename(s.path("calls"), s.path("state", "calls"))) }
	lose := func(route string) {
		t.Helper()
		s.fault(func(r string, _ int) nodetest.Fault {
			if r == route {
				return nodetest.Fault{After: away}
			}
			return nodetest.Fault{}
		})
		if err := s.run(); err == nil {
			t.Fatalf("without its state it goes on: %+v", s.events)
		}
		if len(s.events) != 0 {
			t.Fatalf("it says %+v", s.events)
		}
		s.ok(os.RemoveAll(s.path("state", "calls")))
		back()
		s.fault(nil)
	}
	s.put("w.result.json", s.created(0, "W_ffffffffffffffffffffffffffffff", key))
	lose("POST /address/bykey") // before it is sent
	if n := s.node.Addresses(); n != 2 {
		t.Fatalf("there are %d addresses, want 2", n)
	}
	lose("POST /address")
	s.want(Registered, Bound)
	if n := s.node.Addresses(); n != 3 || s.node.Count("POST /address") != 0 {
		t.Fatalf("there are %d addresses, want 3", n)
	}
	s.put("pay.result.json", s.transfer(0))
	lose("POST /transfer")
	s.want(Doubtful)
	s.carried(1)
	s.want()
	s.carried(1)
}
