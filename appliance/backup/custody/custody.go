// Package custody shares the key that opens backups among custodians: any K of N of
// them open a backup together, and fewer learn nothing.
//
// The key is made here, where the custodians' public recipients are, and leaves as
// shares only, each encrypted to its custodian. What the appliance gets is the
// recipient, so it never has the key. Each share says what it is a share of, so
// that wrong ones are told and do not turn into garbage: the recipient that comes out
// has to be the one that all of them name.
//
// docs/formats.md specifies a share.
package custody

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"github.com/go-json-experiment/json"
)

// Share is one custodian's part. Data is a secret.
type Share struct {
	Type      string `json:"type"`   // "backup.share"
	Format    int    `json:"format"` // 1
	Recipient string `json:"recipient"`
	Split     string `json:"split"` // 16 hexadecimal digits, drawn for each split
	Needed    int    `json:"needed"`
	Shares    int    `json:"shares"`
	Number    int    `json:"share"` // from 1
	Data      []byte `json:"data"`
	Check     string `json:"check"` // see check
}

const shareType = "backup.share"

// Make makes a key, splits it, and returns the recipient and what each custodian
// gets, encrypted to it, in order. Each K neighbours of them were put together again
// before it returns.
func Make(needed int, custodians []age.Recipient) (recipient string, files [][]byte, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", nil, err
	}
	shares, err := splitKey(id, needed, len(custodians))
	if err != nil {
		return "", nil, err
	}
	for i := range shares {
		var some []*Share
		for k := range needed {
			some = append(some, shares[(i+k)%len(shares)])
		}
		if got, err := Combine(some); err != nil || got.String() != id.String() {
			return "", nil, errors.New("internal error: the shares do not give the key again")
		}
	}
	for i, s := range shares {
		text := s.encode()
		file, err := seal(text, custodians[i])
		clear(text)
		clear(s.Data)
		if err != nil {
			return "", nil, fmt.Errorf("encrypting the share of custodian %d: %w", i+1, err)
		}
		files = append(files, file)
	}
	return id.Recipient().String(), files, nil
}

func splitKey(id *age.X25519Identity, needed, n int) ([]*Share, error) {
	secret := []byte(id.String() + "\n")
	defer clear(secret)
	points, err := split(secret, needed, n, rand.Reader)
	if err != nil {
		return nil, err
	}
	var drawn [8]byte
	if _, err := rand.Read(drawn[:]); err != nil {
		return nil, err
	}
	var shares []*Share
	for _, p := range points {
		s := &Share{
			Type: shareType, Format: 1, Recipient: id.Recipient().String(), Split: hex.EncodeToString(drawn[:]),
			Needed: needed, Shares: n, Number: int(p.x), Data: p.y,
		}
		s.Check = s.check()
		shares = append(shares, s)
	}
	return shares, nil
}

func seal(text []byte, to age.Recipient) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// check is a digest of all that the share says, against slips of whoever copies it.
func (s *Share) check() string {
	h := sha256.New()
	fmt.Fprintf(h, "signdrop-share\n%s\n%d\n%s\n%s\n%d\n%d\n%d\n", s.Type, s.Format, s.Recipient, s.Split, s.Needed, s.Shares, s.Number)
	h.Write(s.Data)
	return hex.EncodeToString(h.Sum(nil))
}

func (s *Share) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("internal error: a share cannot be written")
	}
	return append(b, '\n')
}

// MaxShare is more than a share has, encrypted or not, in bytes.
const MaxShare = 64 << 10

// Read reads a share, opened already or still encrypted; ids may open it. No error
// holds anything of it.
func Read(data []byte, ids []age.Identity) (*Share, error) {
	if bytes.HasPrefix(data, []byte("age-encryption.org/")) {
		if len(ids) == 0 {
			return nil, errors.New("the share is encrypted: give its custodian's --identity, or the share opened with age -d")
		}
		r, err := age.Decrypt(bytes.NewReader(data), ids...)
		if err != nil {
			return nil, errors.New("the share is not encrypted to any identity that was given: give its custodian's --identity")
		}
		if data, err = io.ReadAll(io.LimitReader(r, MaxShare)); err != nil {
			return nil, errors.New("the share's file is damaged")
		}
		defer clear(data)
	}
	return Parse(data)
}

// Parse reads the text of a share, strictly.
func Parse(data []byte) (*Share, error) {
	s := &Share{}
	if json.Unmarshal(data, s, json.RejectUnknownMembers(true)) != nil || s.Type != shareType {
		return nil, errors.New("this is not a share of a backup's key: give what signdrop custodians wrote")
	}
	if s.Format != 1 {
		return nil, fmt.Errorf("the share has format %d, which this version does not know: use a newer one", s.Format)
	}
	if s.Check != s.check() {
		return nil, errors.New("the share was altered or copied wrongly: its check value does not fit")
	}
	if s.Needed < 2 || s.Shares < s.Needed || s.Shares > 255 || s.Number < 1 || s.Number > s.Shares || len(s.Data) == 0 {
		return nil, errors.New("the share contradicts itself: give what signdrop custodians wrote")
	}
	return s, nil
}

// Combine puts shares together to the key that opens the backups.
func Combine(shares []*Share) (*age.X25519Identity, error) {
	if len(shares) == 0 {
		return nil, errors.New("no share was given")
	}
	first := shares[0]
	seen := map[int]bool{}
	var points []point
	for _, s := range shares {
		switch {
		case s.Recipient != first.Recipient:
			return nil, fmt.Errorf("share %d is of the key of %s and share %d of that of %s: give shares of one key", s.Number, s.Recipient, first.Number, first.Recipient)
		case s.Split != first.Split || s.Needed != first.Needed || s.Shares != first.Shares || len(s.Data) != len(first.Data):
			return nil, fmt.Errorf("share %d is of split %s and share %d of split %s: give shares that were made together", s.Number, s.Split, first.Number, first.Split)
		case seen[s.Number]:
			return nil, fmt.Errorf("share %d was given twice: give that of another custodian", s.Number)
		}
		seen[s.Number] = true
		points = append(points, point{byte(s.Number), s.Data})
	}
	if missing := first.Needed - len(shares); missing > 0 {
		return nil, fmt.Errorf("%d of %d shares are here and %d are needed: %d more", len(shares), first.Shares, first.Needed, missing)
	}
	secret, err := combine(points, first.Needed)
	if err != nil {
		return nil, fmt.Errorf("%w: at least one was altered; try with fewer of them", err)
	}
	defer clear(secret)
	// The error of parsing could quote what came out.
	id, err := age.ParseX25519Identity(strings.TrimSuffix(string(secret), "\n"))
	if err != nil || id.Recipient().String() != first.Recipient {
		return nil, errors.New("the shares do not give the key: at least one was altered; try those of other custodians")
	}
	return id, nil
}
