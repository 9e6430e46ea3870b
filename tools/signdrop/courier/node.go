package courier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"signdrop/appliance/metacoin"
)

// NodeOptions says how to reach a node.
type NodeOptions struct {
	URL          string // https://HOST[:PORT][/PATH]
	Proxy        string // http, https or socks5; "" for none. The environment is not asked
	CAFile       string // PEM; these certificates and no others may vouch for the node
	Timeout      time.Duration
	InsecureHTTP bool // allow http to other machines
}

// Node is one Metacoin node.
type Node struct {
	base    *url.URL
	timeout time.Duration
	client  *http.Client
}

// maxBody bounds what is read of an answer. The longest that is wanted is a list of
// addresses.
const maxBody = 1 << 20

// NewNode checks the options. It asks no network.
func NewNode(o NodeOptions) (*Node, error) {
	base, err := url.Parse(o.URL)
	switch {
	case err != nil || base.Hostname() == "" || base.Opaque != "":
		return nil, errors.New("the node must be given as https://HOST:PORT")
	case base.User != nil:
		return nil, errors.New("the node's URL cannot hold a user or a password")
	case base.RawQuery != "" || base.ForceQuery || base.Fragment != "":
		return nil, errors.New("the node's URL cannot have a query or a fragment")
	}
	var proxy *url.URL
	if o.Proxy != "" {
		// The error of url.Parse would show the password.
		proxy, err = url.Parse(o.Proxy)
		if err != nil || proxy.Hostname() == "" || proxy.Scheme != "http" && proxy.Scheme != "https" && proxy.Scheme != "socks5" {
			return nil, errors.New("the proxy must be given as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")
		}
	}
	switch base.Scheme {
	case "https":
	case "http":
		if !o.InsecureHTTP && !(loopback(base) && (proxy == nil || loopback(proxy))) {
			return nil, errors.New("the node is to be reached without TLS: use https, or --insecure-http if everybody on the way may read and change all of it")
		}
	default:
		return nil, fmt.Errorf("the node's URL begins with %s: use https", base.Scheme)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		data, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s has no certificate in PEM", o.CAFile)
		}
	}
	base.Path, base.RawPath = strings.TrimRight(base.Path, "/"), ""
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	t := &http.Transport{
		Proxy: http.ProxyURL(proxy), DialContext: dialer.DialContext, TLSClientConfig: conf,
		// A connection of its own for each call: the standard library sends a
		// call again by itself only where one that was kept turns out closed.
		DisableKeepAlives: true, DisableCompression: true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &Node{base: base, timeout: o.Timeout, client: &http.Client{
		Transport: t,
		// A redirect would send a call to whom nobody has named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// URL is the node's, as it is printed and recorded.
func (n *Node) URL() string { return n.base.String() }

// reply is what a node answered.
type reply struct {
	status int
	body   string // "" if err
	wait   time.Duration

	err     error // no answer, or none that could be read to its end
	reached bool  // there was a connection: the call may have been carried out
}

func (r *reply) class() class {
	if r.err != nil {
		return classUnknown
	}
	return classify(r.status, r.body)
}

// String is for people.
func (r *reply) String() string {
	if r.err != nil {
		return r.err.Error()
	}
	return fmt.Sprintf("%d %s", r.status, excerpt(r.body))
}

// excerpt shortens a text of the node's.
func excerpt(s string) string {
	const most = 200
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// call makes one call and no other. form is urlencoded, "" for none.
func (n *Node) call(ctx context.Context, method, path, form string) *reply {
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	var reached atomic.Bool
	// Called when the connection is there, through a proxy and with TLS. Before
	// that nothing of the call has left.
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { reached.Store(true) }})
	u := *n.base
	u.Path += path
	var body io.Reader
	if form != "" {
		body = strings.NewReader(form)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return &reply{err: err}
	}
	req.GetBody = nil
	req.Header.Set("User-Agent", "signdrop")
	req.Header.Set("Accept", "*/*")
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return &reply{err: plain(err), reached: reached.Load()}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = fmt.Errorf("the answer has more than %d bytes", maxBody)
	}
	if err != nil {
		return &reply{status: resp.StatusCode, err: fmt.Errorf("reading the answer: %w", plain(err)), reached: true}
	}
	return &reply{
		status: resp.StatusCode, body: string(data), reached: true,
		wait: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}

// plain takes the URL off an error, which everybody knows, and which for a proxy
// could have a password in it.
func plain(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// addresses asks which addresses a public key has. none is true if the node says
// that it knows none.
func (n *Node) addresses(ctx context.Context, publicKey string) (list []string, none bool, r *reply) {
	r = n.call(ctx, http.MethodPost, "/address/bykey", url.Values{"publickey": {publicKey}}.Encode())
	if r.err != nil {
		return nil, false, r
	}
	if r.status == http.StatusNotFound {
		return nil, true, r
	}
	if r.class() == classDone {
		list, _ = parseAddresses(r.body)
	}
	return list, false, r
}

// ErrAddress: this is no address, and no node is asked about it.
var ErrAddress = errors.New("this is not a Metacoin address: MT and 38 characters, the last 8 a checksum")

// Nonce asks for the one-time key that the next transaction of an address needs.
func (n *Node) Nonce(ctx context.Context, address string) (string, error) {
	// An ill-formed one can end a node's process.
	if !metacoin.ValidAddress(address) {
		return "", fmt.Errorf("%q: %w", address, ErrAddress)
	}
	r := n.call(ctx, http.MethodGet, "/nonce/"+address, "")
	if r.err != nil {
		return "", fmt.Errorf("asking %s for the nonce: %w", n.URL(), r.err)
	}
	if r.class() == classDone {
		if nonce, ok := parseNonce(r.body); ok {
			return nonce, nil
		}
		return "", fmt.Errorf("%s answers with what is no nonce: %s", n.URL(), r)
	}
	return "", fmt.Errorf("%s gives no nonce: %s", n.URL(), r)
}
