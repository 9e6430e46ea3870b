package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	strict "github.com/go-json-experiment/json"

	"signdrop/spool/durable"
)

// Files of db/appliance.
const (
	RingFile      = "seal.json"
	RecipientFile = "recipient" // the public half of identity.age, and a line break
)

// maxRing is more than seal.json has, in bytes.
const maxRing = 64 << 10

// State says whether all key files are sealed under the current volume key.
type State string

// The states.
const (
	StateSealed  State = "sealed"
	StateSealing State = "sealing" // some may still be in the clear, or under the previous key
)

// ring is seal.json.
type ring struct {
	Version int       `json:"version"`
	State   State     `json:"state"`
	Current string    `json:"current"`
	Keys    []ringKey `json:"keys"` // the current one and, while resealing, the previous one
	MAC     string    `json:"mac"`
}

type ringKey struct {
	ID      string    `json:"id"`
	Wrapped []wrapped `json:"wrapped"` // under one KEK; while rotating under two, the new one first
}

type wrapped struct {
	KEK  string `json:"kek"`
	Kind string `json:"kind"`
	Data []byte `json:"data"`
}

func (r *ring) encode() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic("internal error: encoding seal.json: " + err.Error())
	}
	return append(b, '\n')
}

// parseRing reads what encode wrote, byte for byte. It does not know whether that is
// genuine.
func parseRing(text []byte) (*ring, error) {
	r := new(ring)
	if err := strict.Unmarshal(text, r, strict.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("is not in its form: %w", err)
	}
	switch {
	case r.Version != 1:
		return nil, fmt.Errorf("is of version %d, and this program knows version 1", r.Version)
	case r.State != StateSealed && r.State != StateSealing:
		return nil, errors.New("has a state that is not known")
	case len(r.Keys) == 0 || len(r.Keys) > 2 || r.State == StateSealed && len(r.Keys) != 1:
		return nil, errors.New("does not have the volume keys that its state asks for")
	case r.Keys[0].ID != r.Current:
		return nil, errors.New("does not name its first volume key as the current one")
	case len(r.Keys) == 2 && r.Keys[0].ID == r.Keys[1].ID:
		return nil, errors.New("has one volume key twice")
	}
	for _, k := range r.Keys {
		if !isID(k.ID, volumeKey) || len(k.Wrapped) == 0 || len(k.Wrapped) > 2 {
			return nil, errors.New("has a volume key that is none")
		}
		for _, w := range k.Wrapped {
			if !isID(w.KEK, kekPrefix) || len(w.Data) == 0 || w.Kind != kindRaw && w.Kind != kindAge && w.Kind != kindPKCS11 {
				return nil, errors.New("has a wrapped volume key that is none")
			}
		}
	}
	if !bytes.Equal(r.encode(), text) {
		return nil, errors.New("is not in the form in which it was written")
	}
	return r, nil
}

// readRing reads seal.json, nil where there is none.
func readRing(appliance durable.Dir) (*ring, error) {
	text, err := durable.ReadFile(appliance, RingFile, maxRing)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading db/appliance/%s: %w", RingFile, err)
	}
	r, err := parseRing(text)
	if err != nil {
		return nil, fmt.Errorf("db/appliance/%s %w: restore it from the backup; without it no key can be opened", RingFile, err)
	}
	return r, nil
}

// mac computes the ring's mac with the current volume key.
func (r *ring) mac(key []byte) string {
	macKey := derive(key, infoMAC)
	defer clear(macKey)
	bare := *r
	bare.MAC = ""
	m := hmac.New(sha256.New, macKey)
	m.Write(bare.encode())
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// given returns the place of a KEK's id among the wrappings of all volume keys, -1 if
// one of them lacks it.
func (r *ring) given(kek string) int {
	at := 0
	for _, k := range r.Keys {
		found := -1
		for i, w := range k.Wrapped {
			if w.KEK == kek {
				found = i
				break
			}
		}
		if found < 0 {
			return -1
		}
		at = max(at, found)
	}
	return at
}

// wanted lists the ids and kinds of the KEKs that open the ring, for messages.
func (r *ring) wanted() string {
	var ids []string
	for _, w := range r.Keys[0].Wrapped {
		ids = append(ids, fmt.Sprintf("%s (%s)", w.KEK, w.Kind))
	}
	return strings.Join(ids, " or ")
}

// keys are unwrapped volume keys, by id. They are wiped when they are no longer needed.
type keys map[string][]byte

func (ks keys) wipe() {
	for _, k := range ks {
		clear(k)
	}
}

// open unwraps the volume keys with a KEK and checks that the ring is genuine.
func (r *ring) open(k KEK) (keys, error) {
	if r.given(k.ID()) < 0 {
		return nil, fmt.Errorf("the keys of this volume are sealed under the key-encryption key %s, and %s (%s) was given: %w",
			r.wanted(), k.ID(), k.Kind(), ErrKEK)
	}
	ks := keys{}
	for _, rk := range r.Keys {
		for _, w := range rk.Wrapped {
			if w.KEK != k.ID() {
				continue
			}
			key, err := k.Unwrap(w.Data, wrapContext(k, rk.ID))
			if err == nil && (len(key) != keySize || volumeKeyID(key) != rk.ID) {
				clear(key)
				err = errUnwrap
			}
			if err != nil {
				ks.wipe()
				return nil, fmt.Errorf("unwrapping the volume key %s with %s: %w", rk.ID, k.ID(), err)
			}
			ks[rk.ID] = key
			break
		}
	}
	if !hmac.Equal([]byte(r.mac(ks[r.Current])), []byte(r.MAC)) {
		ks.wipe()
		return nil, fmt.Errorf("db/appliance/%s was changed by somebody who does not have the key: restore it from the backup", RingFile)
	}
	return ks, nil
}

// wrap adds the wrapping of each volume key under a KEK, before the others.
func (r *ring) wrap(ks keys, k KEK) error {
	for i, rk := range r.Keys {
		data, err := k.Wrap(ks[rk.ID], wrapContext(k, rk.ID))
		if err != nil {
			return fmt.Errorf("wrapping the volume key with %s: %w", k.ID(), err)
		}
		r.Keys[i].Wrapped = append([]wrapped{{k.ID(), k.Kind(), data}}, rk.Wrapped...)
	}
	return nil
}

// only drops the wrappings under other KEKs.
func (r *ring) only(kek string) {
	for i, rk := range r.Keys {
		for _, w := range rk.Wrapped {
			if w.KEK == kek {
				r.Keys[i].Wrapped = []wrapped{w}
			}
		}
	}
}

// write makes the ring durable and overwrites the one before, which may hold a volume
// key under a KEK that is to open it no more.
//
// Crash: seal.json is the old or the new one, whole. The old one's bytes may be left
// on the disk where no file has them any more.
func (r *ring) write(appliance durable.Dir, ks keys) error {
	r.MAC = r.mac(ks[r.Current])
	old, err := openToWipe(appliance, RingFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing db/appliance/%s: %w", RingFile, err)
	}
	if err == nil {
		defer old.Close()
	}
	if err := durable.ReplaceFile(appliance, RingFile, 0o400, r.encode()); err != nil {
		return fmt.Errorf("writing db/appliance/%s: %w", RingFile, err)
	}
	if old != nil {
		if err := zero(old); err != nil {
			return fmt.Errorf("wiping the previous db/appliance/%s: %w", RingFile, err)
		}
		if err := old.Sync(); err != nil {
			return fmt.Errorf("wiping the previous db/appliance/%s: %w", RingFile, err)
		}
	}
	return nil
}

func (r *ring) sealer(ks keys, k KEK) *Sealer {
	s := &Sealer{current: r.Current, keys: map[string]cipher.AEAD{}, kek: k.ID()}
	for id, key := range ks {
		s.keys[id] = newAEAD(key, infoFiles)
	}
	return s
}

func volumeKeyID(key []byte) string {
	id := derive(key, infoVolumeID)
	defer clear(id)
	return makeID(volumeKey, id)
}

// addKey draws a volume key, which becomes the current one, and wraps it under k.
func (r *ring) addKey(ks keys, k KEK) error {
	key := make([]byte, keySize)
	rand.Read(key) // never fails
	rk := ringKey{ID: volumeKeyID(key)}
	data, err := k.Wrap(key, wrapContext(k, rk.ID))
	if err != nil {
		clear(key)
		return fmt.Errorf("wrapping a new volume key with %s: %w", k.ID(), err)
	}
	rk.Wrapped = []wrapped{{k.ID(), k.Kind(), data}}
	ks[rk.ID] = key
	r.Current, r.Keys = rk.ID, append([]ringKey{rk}, r.Keys...)
	return nil
}

// New begins a volume that never had a key in the clear: it returns its Sealer and the
// content of its seal.json.
func New(k KEK) (*Sealer, []byte, error) {
	r, ks := &ring{Version: 1, State: StateSealed}, keys{}
	defer ks.wipe()
	if err := r.addKey(ks, k); err != nil {
		return nil, nil, err
	}
	r.MAC = r.mac(ks[r.Current])
	return r.sealer(ks, k), r.encode(), nil
}

// Info is what seal.json says to somebody who has no key.
type Info struct {
	State     State
	VolumeKey string   // id
	KEKs      []string // ids of those that open it: one, or two during a rotation
	Kinds     []string // of what kind each of them is
}

// Look returns what a volume's seal.json says, nil if its keys lie in the clear. root
// is the top of the volume.
func Look(root durable.Dir) (*Info, error) {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return nil, fmt.Errorf("opening db/appliance: %w (run signdrop init first)", err)
	}
	defer d.Close()
	r, err := readRing(d)
	if r == nil || err != nil {
		return nil, err
	}
	i := &Info{State: r.State, VolumeKey: r.Current}
	for _, w := range r.Keys[0].Wrapped {
		i.KEKs, i.Kinds = append(i.KEKs, w.KEK), append(i.Kinds, w.Kind)
	}
	return i, nil
}

// CheckPlain returns ErrSealed if the keys below db are sealed and s is nil: what would
// be written then would lie in the clear.
func CheckPlain(db durable.Dir, s *Sealer) error {
	if s != nil {
		return nil
	}
	d, err := db.Sub("appliance")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Stat(RingFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return ErrSealed
}
