package door

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// gate counts connections. It does not wait: who is one too many is closed.
type gate struct {
	set Settings
	now func() time.Time

	mu        sync.Mutex
	waiting   []*visitor // not logged in yet, the oldest first
	inside    int
	companies map[string]int
	sources   map[netip.Prefix]*bucket
}

// visitor is one connection.
type visitor struct {
	conn    net.Conn
	source  netip.Prefix
	company string // "" while it has not logged in
	gone    bool
}

// bucket bounds how often a source may connect.
type bucket struct {
	tokens float64
	at     time.Time
}

// maxSources bounds the memory for sources.
const maxSources = 8192

var (
	errRate  = errors.New("the address connects too often")
	errFull  = errors.New("too many connections")
	errShare = errors.New("too many connections of this company")
)

func newGate(set Settings, now func() time.Time) *gate {
	return &gate{set: set, now: now, companies: map[string]int{}, sources: map[netip.Prefix]*bucket{}}
}

// sourceOf is whom an address is counted with: itself, or its /64.
func sourceOf(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// enter admits a connection that has not logged in. Where too many of them wait, the
// oldest is closed in its favour: an honest client needs a moment, while one that
// only wants to occupy a place has to come again and again.
func (g *gate) enter(conn net.Conn, addr netip.Addr) (*visitor, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := &visitor{conn: conn, source: sourceOf(addr)}
	if !g.spend(v.source) {
		return nil, errRate
	}
	same := 0
	for _, w := range g.waiting {
		if w.source == v.source {
			same++
		}
	}
	if same >= g.set.MaxSourceWaiting {
		g.closeOldest(func(w *visitor) bool { return w.source == v.source })
	} else if len(g.waiting) >= g.set.MaxWaiting {
		g.closeOldest(func(*visitor) bool { return true })
	}
	g.waiting = append(g.waiting, v)
	return v, nil
}

func (g *gate) closeOldest(which func(*visitor) bool) {
	for i, w := range g.waiting {
		if which(w) {
			w.conn.Close()
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			return
		}
	}
}

// spend takes one connection from what the source may still open.
func (g *gate) spend(source netip.Prefix) bool {
	now := g.now()
	b := g.sources[source]
	if b == nil {
		if len(g.sources) >= maxSources {
			g.forget(now)
		}
		b = &bucket{tokens: g.set.SourceBurst, at: now}
		g.sources[source] = b
	}
	b.fill(now, g.set)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *bucket) fill(now time.Time, set Settings) {
	if since := now.Sub(b.at).Seconds(); since > 0 {
		b.tokens = min(set.SourceBurst, b.tokens+since*set.SourceRate)
	}
	b.at = now
}

// forget drops the sources that are as if they had never come, or all where none
// is: that many addresses at once are no single client's.
func (g *gate) forget(now time.Time) {
	for s, b := range g.sources {
		if b.fill(now, g.set); b.tokens >= g.set.SourceBurst {
			delete(g.sources, s)
		}
	}
	if len(g.sources) >= maxSources {
		clear(g.sources)
	}
}

// login moves a visitor inside.
func (g *gate) login(v *visitor, company string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopWaiting(v)
	switch {
	case g.inside >= g.set.MaxConns:
		return errFull
	case g.companies[company] >= g.set.MaxCompanyConns:
		return errShare
	}
	v.company = company
	g.inside++
	g.companies[company]++
	return nil
}

func (g *gate) stopWaiting(v *visitor) {
	for i, w := range g.waiting {
		if w == v {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			return
		}
	}
}

// leave forgets a visitor. It may be called more than once.
func (g *gate) leave(v *visitor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.gone {
		return
	}
	v.gone = true
	g.stopWaiting(v)
	if v.company == "" {
		return
	}
	g.inside--
	if g.companies[v.company]--; g.companies[v.company] == 0 {
		delete(g.companies, v.company)
	}
}
