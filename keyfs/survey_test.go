package keyfs_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"

	"signdrop/spool/durable"
)

// state is what lies on the disk, read without the package's own reader.
type state struct {
	wallets map[string]onDisk // by id
	claims  map[string]string // id by address
	temps   []string          // names that begin with a dot, anywhere
}

type onDisk struct {
	publicKey, address string
	active             bool
}

// survey reads everything of the company from a volume and checks what must be
// true at any time, whatever has failed and wherever the machine stopped:
//
//   - a wallet that has its name is whole: both files, 0400, its key is the one
//     of its public key
//   - an address file names a wallet that exists
//   - a wallet's address is claimed by an address file that names this wallet
//   - no two wallets have the same address, or the same key
func survey(t *testing.T, vol durable.FS) state {
	t.Helper()
	st := state{wallets: map[string]onDisk{}, claims: map[string]string{}}
	root, err := vol.Root()
	must(t, err)
	defer root.Close()
	sub := func(d durable.Dir, names ...string) durable.Dir {
		t.Helper()
		s, err := durable.SubPath(d, names...)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		must(t, err)
		return s
	}
	// each calls f for every name in a directory that does not begin with a dot.
	each := func(d durable.Dir, at string, f func(name string)) {
		t.Helper()
		if d == nil {
			return
		}
		defer d.Close()
		var names []string
		must(t, durable.Walk(d, func(e durable.Entry) error { names = append(names, e.Name); return nil }))
		slices.Sort(names)
		for _, name := range names {
			if strings.HasPrefix(name, ".") {
				st.temps = append(st.temps, path.Join(at, name))
			} else {
				f(name)
			}
		}
	}
	read := func(d durable.Dir, name string) []byte {
		t.Helper()
		b, err := durable.ReadFile(d, name, 1<<16)
		must(t, err)
		return b
	}

	keys, addresses := map[string]string{}, map[string]string{}
	wallets := sub(root, "db", "companies", company, "wallets")
	each(wallets, "wallets", func(id string) {
		dir := sub(wallets, id)
		each(sub(wallets, id), path.Join("wallets", id), func(file string) {
			info, err := dir.Stat(file)
			must(t, err)
			if info.Mode != 0o400 {
				t.Errorf("wallet %s: %s has mode %v", id, file, info.Mode)
			}
		})
		var rec struct {
			ID        string
			PublicKey string `json:"public_key"`
			Address   string
			Status    string
		}
		must(t, json.Unmarshal(read(dir, "wallet.json"), &rec))
		if rec.ID != id {
			t.Errorf("wallet %s: wallet.json has the id %s", id, rec.ID)
		}
		if got := publicOf(t, read(dir, "key.pem")); got != rec.PublicKey {
			t.Errorf("wallet %s: the key's public key is\n%swant\n%s", id, got, rec.PublicKey)
		}
		if other, ok := keys[rec.PublicKey]; ok {
			t.Errorf("wallets %s and %s have the same key", id, other)
		}
		keys[rec.PublicKey] = id
		if rec.Address != "" {
			if other, ok := addresses[rec.Address]; ok {
				t.Errorf("wallets %s and %s have the address %s", id, other, rec.Address)
			}
			addresses[rec.Address] = id
		}
		st.wallets[id] = onDisk{rec.PublicKey, rec.Address, rec.Status == "active"}
		dir.Close()
	})
	claims := sub(root, "db", "companies", company, "addresses")
	each(claims, "addresses", func(address string) {
		b := read(claims, address)
		id := strings.TrimSuffix(string(b), "\n")
		if _, ok := st.wallets[id]; !ok {
			t.Errorf("address %s names wallet %q, which does not exist", address, b)
		}
		st.claims[address] = id
	})
	for address, id := range addresses {
		if st.claims[address] != id {
			t.Errorf("wallet %s has address %s, whose file names %q", id, address, st.claims[address])
		}
	}
	return st
}

// publicOf computes the public key of a key.pem: not with this package, since
// survey must not believe what it checks.
func publicOf(t *testing.T, key []byte) string {
	t.Helper()
	block, _ := pem.Decode(key)
	if block == nil {
		t.Fatal("key.pem is not PEM")
	}
	if block.Type == "BIP32 PRIVATE KEY" && len(block.Bytes) == 78 {
		// SubjectPublicKeyInfo of secp256k1, and the point.
		head, err := hex.DecodeString("3056301006072a8648ce3d020106052b8104000a034200")
		must(t, err)
		_, pub := btcec.PrivKeyFromBytes(block.Bytes[46:])
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: append(head, pub.SerializeUncompressed()...)}))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil { // secp256k1
		return string(openssl(t, key, "pkey", "-pubout"))
	}
	pub, err := x509.MarshalPKIXPublicKey(parsed.(*ecdsa.PrivateKey).Public())
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}))
}

// tree lists everything below db that is not the company's own directory, with
// its mode.
func tree(t *testing.T, v *volume) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(v.path, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		rel, err := filepath.Rel(v.path, path)
		must(t, err)
		if strings.Count(rel, "/") < 2 {
			return nil
		}
		info, err := d.Info()
		must(t, err)
		fmt.Fprintf(&b, "%s %04o\n", rel, info.Mode().Perm())
		return nil
	}))
	return b.String()
}
