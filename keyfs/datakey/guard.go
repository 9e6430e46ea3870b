package datakey

import (
	"sync"
	"time"
)

// How wrong passphrases slow a key down.
const (
	freeTries = 5                // wrong ones before the first wait
	firstWait = time.Second      // doubled by each wrong one after that
	longest   = 15 * time.Minute // of a wait
)

// Guard counts the wrong passphrases for each key and says how long the next try
// has to wait. It never sleeps: the caller refuses what comes too early. It forgets
// when the process ends. The zero Guard is ready; it is safe for concurrent use.
//
// Whoever tries two passphrases for one key at the same time gets both tries for
// one wait, so the caller takes one at a time: Wait, Decrypt, then Wrong or Right.
//
// A key is named by company and id together. Names are kept until Right is called,
// so the caller asks only for keys that exist.
type Guard struct {
	mu    sync.Mutex
	wrong map[string]tries
}

type tries struct {
	count int
	last  time.Time
}

// Wait returns how long the next try for a key has to wait, 0 if it may be made
// now. A clock that goes back makes no wait longer than it was.
func (g *Guard) Wait(id string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.wrong[id]
	if t.count < freeTries {
		return 0
	}
	wait := longest
	if doubled := t.count - freeTries; doubled < 10 { // 2^10 s are more than the longest
		wait = min(firstWait<<doubled, longest)
	}
	return min(max(wait-now.Sub(t.last), 0), wait)
}

// Wrong counts a wrong passphrase.
func (g *Guard) Wrong(id string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wrong == nil {
		g.wrong = map[string]tries{}
	}
	g.wrong[id] = tries{g.wrong[id].count + 1, now}
}

// Right forgets the wrong ones: the key was opened.
func (g *Guard) Right(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.wrong, id)
}
