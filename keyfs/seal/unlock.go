package seal

import (
	"errors"
	"fmt"
	"io/fs"

	"signdrop/spool/durable"
)

// Errors that callers test for with errors.Is.
var (
	// ErrKEK: the key-encryption key is not the one that is needed.
	ErrKEK = errors.New("give the key that is named first (--seal), or both to change it (--seal and --seal-previous)")

	// ErrSealed: the volume's keys are sealed, and no key-encryption key was given.
	ErrSealed = errors.New("the keys of this volume are sealed: give the key-encryption key with --seal")

	// ErrPlain: the volume's keys lie in the clear, and a key-encryption key was given.
	ErrPlain = errors.New("the keys of this volume lie in the clear: seal them first with signdropd seal, for which there is no way back")
)

// Request says what is to be done with a volume before its keys are used.
type Request struct {
	KEK      KEK // nil: the keys are to lie in the clear
	Previous KEK // where the KEK is being changed, the one before; nil else

	// Convert seals key files that lie in the clear: all those of a volume that is
	// not sealed, and what was put back from an old backup on one that is.
	Convert bool

	// NewVolumeKey seals everything anew under a new volume key.
	NewVolumeKey bool

	// Progress is told now and then how many key files of how many are sealed; nil
	// for nobody.
	Progress func(done, of int)
}

// Result says what Unlock did.
type Result struct {
	Rotated bool // the previous KEK does not open the volume any more
	Sealed  int  // files that were sealed, or sealed anew
	Files   int  // files that were looked at; 0 if there was no need to
}

// Unlock makes the volume as the Request wants it and returns its Sealer, nil for a
// volume whose keys lie in the clear. Nothing else may use the volume meanwhile. root
// is its top.
//
// Crash: doing it again, with the same keys, finishes. The KEK that opened the volume
// before opens it until everything is done.
func Unlock(vol durable.FS, root durable.Dir, req Request) (*Sealer, Result, error) {
	u := &unlocking{vol: vol, req: req}
	var err error
	if u.db, err = root.Sub("db"); err != nil {
		return nil, u.result, fmt.Errorf("opening db: %w (run signdrop init first)", err)
	}
	defer u.db.Close()
	if u.appliance, err = u.db.Sub("appliance"); err != nil {
		return nil, u.result, fmt.Errorf("opening db/appliance: %w (run signdrop init first)", err)
	}
	defer u.appliance.Close()
	s, err := u.run()
	u.keys.wipe()
	return s, u.result, err
}

// Open returns the Sealer of a volume that somebody else may be using, and changes
// nothing: a volume on which something was begun and not finished is refused.
func Open(root durable.Dir, k KEK) (*Sealer, error) {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return nil, fmt.Errorf("opening db/appliance: %w (run signdrop init first)", err)
	}
	defer d.Close()
	r, err := readRing(d)
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		return nil, ErrPlain
	case r.State != StateSealed:
		return nil, errors.New("sealing this volume was begun and not finished: run signdropd seal with the same keys")
	}
	ks, err := r.open(k)
	if err != nil {
		return nil, err
	}
	defer ks.wipe()
	return r.sealer(ks, k), nil
}

// unlocking is one call of Unlock.
type unlocking struct {
	vol           durable.FS
	db, appliance durable.Dir
	req           Request
	ring          *ring
	keys          keys
	list          []keyFile // see files
	result        Result
}

func (u *unlocking) run() (*Sealer, error) {
	var err error
	if u.ring, err = readRing(u.appliance); err != nil {
		return nil, err
	}
	switch {
	case u.ring == nil && u.req.KEK == nil:
		return nil, nil
	case u.req.KEK == nil:
		return nil, fmt.Errorf("%w, %s", ErrSealed, u.ring.wanted())
	case u.ring == nil && !u.req.Convert:
		return nil, ErrPlain
	case u.ring == nil:
		if err := u.begin(); err != nil {
			return nil, err
		}
	default:
		if err := u.settle(); err != nil {
			return nil, err
		}
		if err := u.open(); err != nil {
			return nil, err
		}
	}
	if err := u.convert(); err != nil {
		return nil, err
	}
	return u.ring.sealer(u.keys, u.req.KEK), nil
}

// settle makes durable what a predecessor may have been killed over, and clears what it
// left.
func (u *unlocking) settle() error {
	err := u.appliance.Remove("." + RingFile + ".new")
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = u.appliance.Sync()
	}
	if err != nil {
		return fmt.Errorf("tidying db/appliance: %w", err)
	}
	return nil
}

// begin makes a volume with keys in the clear one that is being sealed.
//
// Crash: there is a seal.json or there is none, and no key file was touched.
func (u *unlocking) begin() error {
	// Everything that could stand in the way is found before anything is changed.
	if _, err := u.files(); err != nil {
		return err
	}
	u.ring, u.keys = &ring{Version: 1, State: StateSealing}, keys{}
	if err := u.ring.addKey(u.keys, u.req.KEK); err != nil {
		return err
	}
	return u.ring.write(u.appliance, u.keys)
}

// open unwraps the volume keys, and changes the KEK if that is wanted or was begun.
//
// Crash: before the first write the previous KEK opens the volume, after it both, and
// after the second write the new one alone.
func (u *unlocking) open() error {
	var err error
	kek := u.req.KEK
	switch at := u.ring.given(kek.ID()); {
	case at < 0 && u.req.Previous != nil:
		if u.keys, err = u.ring.open(u.req.Previous); err != nil {
			return err
		}
		u.ring.only(u.req.Previous.ID()) // of a change to another KEK that was given up
		if err := u.ring.wrap(u.keys, kek); err != nil {
			return err
		}
		if err := u.ring.write(u.appliance, u.keys); err != nil {
			return err
		}
		// The previous wrapping goes only when the disk has shown that the new one
		// opens.
		u.keys.wipe()
		if u.ring, err = readRing(u.appliance); err != nil {
			return err
		}
		if u.keys, err = u.ring.open(kek); err != nil {
			return err
		}
		return u.dropPrevious()
	default:
		if u.keys, err = u.ring.open(kek); err != nil {
			return err
		}
		if at == 0 && len(u.ring.Keys[0].Wrapped) > 1 {
			return u.dropPrevious()
		}
		return nil
	}
}

func (u *unlocking) dropPrevious() error {
	u.ring.only(u.req.KEK.ID())
	u.result.Rotated = true
	return u.ring.write(u.appliance, u.keys)
}

// convert finishes a sealing or resealing that was begun, and begins one if that is
// wanted.
func (u *unlocking) convert() error {
	if u.ring.State == StateSealed {
		if !u.req.Convert && !u.req.NewVolumeKey {
			return nil
		}
		if _, err := u.files(); err != nil {
			return err
		}
		u.ring.State = StateSealing
		if u.req.NewVolumeKey {
			if err := u.ring.addKey(u.keys, u.req.KEK); err != nil {
				return err
			}
		}
		if err := u.ring.write(u.appliance, u.keys); err != nil {
			return err
		}
	}
	if err := u.sealAll(); err != nil {
		return err
	}
	// Crash here: every file is sealed under the current key, and this is found out
	// once more.
	u.ring.State, u.ring.Keys = StateSealed, u.ring.Keys[:1]
	for id := range u.keys {
		if id != u.ring.Current {
			clear(u.keys[id])
			delete(u.keys, id)
		}
	}
	return u.ring.write(u.appliance, u.keys)
}
