package keyfs

import (
	"container/list"
	"sync"
)

// cache holds the wallets that were used last. It is safe for concurrent use.
type cache struct {
	mu      sync.Mutex
	max     int                        // wallets
	order   *list.List                 // of *Wallet, the one used last in front
	wallets map[walletID]*list.Element // every element of order, by the wallet's id
	bound   map[walletID]*list.Element // those of which the address file was read, by address
	changes uint64                     // how often a wallet's files were changed
}

func newCache(max int) *cache {
	return &cache{
		max:     max,
		order:   list.New(),
		wallets: map[walletID]*list.Element{},
		bound:   map[walletID]*list.Element{},
	}
}

func (c *cache) get(id walletID) (*Wallet, bool)         { return c.find(c.wallets, id) }
func (c *cache) byAddress(addr walletID) (*Wallet, bool) { return c.find(c.bound, addr) }

func (c *cache) find(in map[walletID]*list.Element, name walletID) (*Wallet, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := in[name]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*Wallet), true
}

// now is to be asked before a wallet's files are read, and given to add.
func (c *cache) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

// add takes in a wallet that was read from its files and returns the one to use:
// another goroutine may have been faster. What was read before a change of any
// files is not held, since it may be the wallet as it was.
func (c *cache) add(w *Wallet, read uint64) *Wallet {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.wallets[w.id]; ok {
		return e.Value.(*Wallet)
	}
	if read == c.changes {
		c.insert(w)
	}
	return w
}

// replace takes in a wallet whose files were changed. bound says that its address
// file is known to name it.
func (c *cache) replace(w *Wallet, bound bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	if e, ok := c.wallets[w.id]; ok {
		c.remove(e)
	}
	e := c.insert(w)
	if bound {
		c.bound[w.addressID()] = e
	}
}

// bind notes that the address file of a wallet was read and names it.
func (c *cache) bind(w *Wallet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.wallets[w.id]; ok && e.Value.(*Wallet) == w {
		c.bound[w.addressID()] = e
	}
}

func (c *cache) insert(w *Wallet) *list.Element {
	if c.order.Len() >= c.max {
		c.remove(c.order.Back())
	}
	e := c.order.PushFront(w)
	c.wallets[w.id] = e
	return e
}

func (c *cache) remove(e *list.Element) {
	w := c.order.Remove(e).(*Wallet)
	delete(c.wallets, w.id)
	delete(c.bound, w.addressID())
}
