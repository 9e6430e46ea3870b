// Package door lets partners reach their directories by SFTP, and nothing else.
//
// # Two processes
//
// The keeper runs with the rights of whoever started it. It binds the port, reads
// who may log in from db/, holds the host key, and starts the door: the same
// program as another user, which gets three descriptors and nothing else: the
// directory spool/, the listening socket and a socket to the keeper. Over that
// socket the keeper tells it the authorized_keys of each active company, again
// when they change, and signs for it with the host key. The door that faces the
// network can open neither db/ nor work/ nor journal/: it is not their owner, and
// Landlock, where the kernel has it, lets it open nothing but files below spool/.
//
// The signer does not know of either. The spool directories are all that it shares
// with the door, and a door that dies is started again.
//
// # What an upload is
//
// An upload of NAME lies in the inbox as ".door-NAME", which the spool ignores
// (spool.Unfinished). When the client closes it, it is synced, gets its name by one
// rename, the directory is synced, and then the client is told OK. A connection
// that is cut leaves ".door-NAME" with the bytes that came without a gap; it can be
// resumed for as long as it is kept. A door that is killed leaves one that cannot:
// nobody knows which of its bytes came. The mode tells them apart, 0640 and 0600.
//
// A file that waits is taken back into ".door-NAME" at the first write to it.
//
// Crash between any two of these steps: the file lies there under one of its two
// names, whole under NAME, and the client has not been told OK.
package door

import (
	"errors"
	"time"
)

// Settings are the limits of the door. The keeper sends them to it.
type Settings struct {
	// MaxBytes and MaxFiles bound what may wait in one company's inbox,
	// unfinished uploads included. MaxFile bounds one file, in bytes.
	MaxBytes int64
	MaxFiles int
	MaxFile  int64

	// Reserve is how much of the disk, in bytes, uploads leave free. It is more
	// than what the appliance needs to go on answering.
	Reserve uint64

	// MaxConns bounds the connections that have logged in, MaxCompanyConns
	// those of one company, MaxWaiting those that have not logged in yet and
	// MaxSourceWaiting those from one address (of IPv6, from one /64).
	MaxConns, MaxCompanyConns, MaxWaiting, MaxSourceWaiting int

	// MaxChannels and MaxHandles are for one connection, and a company may have
	// MaxCompanyHandles open in all.
	MaxChannels, MaxHandles, MaxCompanyHandles int

	// SourceBurst and SourceRate, in connections a second, bound how often one
	// address may connect.
	SourceBurst, SourceRate float64

	Login time.Duration // how long a login may take
	Idle  time.Duration // how long a connection may ask for nothing
	Stall time.Duration // how long a client may leave what we write unread
	Keep  time.Duration // how long an unfinished upload is kept

	// Recent is how long a name that was uploaded still answers stat after the
	// appliance has taken the file away: clients look after they have put.
	Recent time.Duration
}

// DefaultSettings are the limits unless others are given.
func DefaultSettings() Settings {
	return Settings{
		MaxBytes: 1 << 30, MaxFiles: 10_000, MaxFile: 64 << 20, Reserve: 128 << 20,
		MaxConns: 128, MaxCompanyConns: 32, MaxWaiting: 256, MaxSourceWaiting: 64,
		MaxChannels: 2, MaxHandles: 64, MaxCompanyHandles: 256,
		SourceBurst: 100, SourceRate: 10,
		Login: 20 * time.Second, Idle: 10 * time.Minute, Stall: time.Minute, Keep: 24 * time.Hour,
		Recent: 2 * time.Minute,
	}
}

// Check refuses limits that would let nobody in.
func (s Settings) Check() error {
	if s.MaxBytes < 1 || s.MaxFiles < 1 || s.MaxFile < 1 {
		return errors.New("the quota of bytes and files must be 1 or more")
	}
	if s.MaxConns < 1 || s.MaxCompanyConns < 1 || s.MaxWaiting < 1 || s.MaxSourceWaiting < 1 ||
		s.MaxChannels < 1 || s.MaxHandles < 1 || s.MaxCompanyHandles < 1 {
		return errors.New("the number of connections must be 1 or more")
	}
	if s.SourceBurst < 1 || s.SourceRate <= 0 {
		return errors.New("the rate of connections must be more than 0")
	}
	if s.Login <= 0 || s.Idle <= 0 || s.Stall <= 0 || s.Keep <= 0 || s.Recent < 0 {
		return errors.New("times must be more than 0")
	}
	return nil
}
