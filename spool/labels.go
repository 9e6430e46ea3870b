package spool

import (
	"maps"
	"slices"
	"sync"

	"signdrop/spool/durable"
)

// labels knows which further signatures lie in an inbox, by request, so that
// reading a request need not list the directory. It is as good as the last
// listing and the hints since: what it does not know yet, a later walk finds.
type labels struct {
	mu     sync.Mutex
	listed bool // the inbox has been listed since it was opened
	of     map[string][]string
	count  int
}

// maxLabels bounds the memory of one company's further signatures. Those beyond it
// are looked at when others have gone.
const maxLabels = 1 << 16

// list reads all further signatures of a directory.
func (l *labels) list(inbox durable.Dir) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of, l.count, l.listed = nil, 0, false
	err := durable.Walk(inbox, func(e durable.Entry) error {
		if request, label, ok := sigOf(e.Name); ok && label != "" {
			l.addLocked(request, label)
		}
		return nil
	})
	l.listed = err == nil
	return err
}

// ensure lists the directory if that was not done yet.
func (l *labels) ensure(inbox durable.Dir) error {
	l.mu.Lock()
	listed := l.listed
	l.mu.Unlock()
	if listed {
		return nil
	}
	return l.list(inbox)
}

func (l *labels) add(request, label string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(request, label)
}

func (l *labels) addLocked(request, label string) {
	i, known := slices.BinarySearch(l.of[request], label)
	if known || l.count >= maxLabels {
		return
	}
	if l.of == nil {
		l.of = map[string][]string{}
	}
	l.of[request] = slices.Insert(slices.Clone(l.of[request]), i, label)
	l.count++
}

func (l *labels) remove(request, label string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, known := slices.BinarySearch(l.of[request], label)
	if !known {
		return
	}
	l.count--
	if rest := slices.Delete(slices.Clone(l.of[request]), i, i+1); len(rest) > 0 {
		l.of[request] = rest
	} else {
		delete(l.of, request)
	}
}

// get returns a request's labels in order, at most max.
func (l *labels) get(request string, max int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.of[request]
	return list[:min(len(list), max):min(len(list), max)]
}

// forget lets go of all, so that the next look lists anew.
func (l *labels) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of, l.count, l.listed = nil, 0, false
}

// union merges two lists of labels into one, in order.
func union(a, b []string) []string {
	set := map[string]bool{}
	for _, s := range a {
		set[s] = true
	}
	for _, s := range b {
		set[s] = true
	}
	return slices.Sorted(maps.Keys(set))
}
