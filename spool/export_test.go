package spool

// For the tests of names.
var (
	SigOf   = sigOf
	SigName = sigName
)

func IsRequest(name string) bool {
	_, ok := typeOf(DefaultTypes, name)
	return ok
}

// OnAdd puts f before each watch that is added.
func (w *Watcher) OnAdd(f func(path string) error) {
	add := w.w.Add
	w.add = func(path string) error {
		if err := f(path); err != nil {
			return err
		}
		return add(path)
	}
}

// OnAdd2 counts the watches that are asked for.
func (w *Watcher) OnAdd2(n *int) {
	add := w.add
	w.add = func(path string) error {
		*n++
		return add(path)
	}
}
