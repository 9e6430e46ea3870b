package door

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Between keeper and door goes one kind of frame in each direction: four bytes of
// length, big-endian, and that many bytes. The keeper sends messages as JSON; the
// door sends a report first, as JSON, and then what the host key shall sign, as it
// is. Every request is answered by a message with a signature, in order.

// message is what the keeper tells. One of its fields is set.
type message struct {
	Hello     *hello   `json:",omitzero"` // the first
	Company   *allowed `json:",omitzero"`
	Gone      string   `json:",omitzero"` // a company that may not log in any more
	Ready     bool     `json:",omitzero"` // all companies have been told
	Signature []byte   `json:",omitzero"`
}

type hello struct {
	Settings Settings
	HostKey  []byte // the public key in wire form
	Own      bool   // the door runs as the keeper's own user: only Landlock keeps it out
}

// allowed is who may log in as a company.
type allowed struct {
	Name string
	Keys []byte // authorized_keys
}

// Limits of frames, in bytes.
const (
	maxMessage = 2 << 20
	maxToSign  = 48
)

// exchangeHash reports whether data may be an exchange hash (RFC 4253, 8): SHA-256
// or SHA-384 of kexes. What ssh-keygen -Y sign would sign (PROTOCOL.sshsig) has 60
// bytes or more, and begins otherwise.
func exchangeHash(data []byte) bool {
	return (len(data) == 32 || len(data) == 48) && !bytes.HasPrefix(data, []byte("SSHSIG"))
}

func writeFrame(w io.Writer, data []byte) error {
	buf := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data)))
	_, err := w.Write(append(buf, data...))
	return err
}

func readFrame(r io.Reader, max uint32) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > max {
		return nil, fmt.Errorf("a frame of %d bytes, more than %d", n, max)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(r, data)
	return data, err
}

func writeMessage(w io.Writer, m message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(data) > maxMessage {
		return errors.New("internal error: message too long")
	}
	return writeFrame(w, data)
}

func readMessage(r io.Reader) (message, error) {
	var m message
	data, err := readFrame(r, maxMessage)
	if err != nil {
		return m, err
	}
	err = json.Unmarshal(data, &m)
	return m, err
}
