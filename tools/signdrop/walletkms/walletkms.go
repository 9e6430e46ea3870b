// Package walletkms reads what INBLOCK's walletKMS kept in its RocksDB folder, from
// the text that RocksDB's ldb prints of it (Debian's package rocksdb-tools):
//
//	ldb --db=db scan          KEY : VALUE            (from RocksDB 8 on, KEY ==> VALUE)
//	ldb --db=db dump          KEY ==> VALUE, and a last line "Keys in range: N"
//
// one entry a line, keys and values as text or, with --hex, --key_hex or
// --value_hex, as 0x and hexadecimal digits.
//
// # What walletKMS writes
//
// The fields are those of its published source, version 1.0.0 (handler.js,
// handler_company.js, handler_key.js and handler_mtc.js of
// github.com/MetacoinDeveloperTeam/walletKMS). Values are the output of
// JSON.stringify, hence one line each.
//
//	INIT:ADMIN            ip          list of the addresses that may call
//	                      public_key  PEM, an EC key
//	DB:COMPANY:C_…        name
//	                      ip
//	                      public_key  PEM, an EC key
//	                      status      10 for normal; no call sets another
//	ADDR:C_…:A_…          private_key PEM, an EC key; PKCS#8 if walletKMS made it, and
//	                                  without its last line break if it was imported
//	                      address     MT…
//	                      id          "", only if it was imported
//	DB:KEY:K_…            company     C_…
//	                      status      10
//	                      name        left out where the caller gave none
//	                      public_key  PEM, RSA of 4096 bits
//	                      private_key PEM, the same, as PKCS#8 under a passphrase
//
// An id is C_, A_ or K_ and 30 letters and digits. All of these fields are relied
// on. One that is missing or of another type makes its entry fail; one that is not
// listed is told of by name, and so is an entry with another key.
//
// # What it must not be used for
//
// It checks the form of a dump and no key in it. A dump is full of secrets in the
// clear; no error holds more of it than the names of keys and fields.
package walletkms

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// StatusNormal is the status of a company or data key that may be used.
const StatusNormal = 10

// Entry is what all entries have.
type Entry struct {
	Line int    // of the dump, from 1
	ID   string // the last part of the key; "" where there is none

	// Err says why the entry cannot be used, to be read after its name; nil if
	// it can. Other fields may be unset then.
	Err error

	// Unknown are the names of fields that walletKMS's source does not have, in
	// order.
	Unknown []string
}

// Admin is the entry INIT:ADMIN.
type Admin struct {
	Entry
	IPs       int // length of the list of addresses
	PublicPEM string
}

// Company is an entry DB:COMPANY.
type Company struct {
	Entry
	IPs       int
	Name      string
	PublicPEM string
	Status    int
}

// Wallet is an entry ADDR.
type Wallet struct {
	Entry
	Company    string // its id
	PrivatePEM string
	Address    string
}

// DataKey is an entry DB:KEY.
type DataKey struct {
	Entry
	Company      string // its id
	Name         string // "" for none
	PublicPEM    string
	EncryptedPEM string
	Status       int
}

// Dump is everything that a walletKMS kept, in the order of the dump.
type Dump struct {
	Admins    []Admin // one at most
	Companies []Company
	Wallets   []Wallet
	DataKeys  []DataKey
	Others    []Entry // of no known kind; ID is the whole key
}

// The key of an entry that is not text or not short is not shown.
var showable = regexp.MustCompile(`^[A-Za-z0-9:_-]{1,100}$`)

var idForm = regexp.MustCompile(`^[CAK]_[A-Za-z0-9]{30}$`)

// Parse reads a dump. An error means that the text is none, or not all of one:
// nothing of it is to be used. What is wrong with a single entry stands in its Err.
func Parse(text []byte) (*Dump, error) {
	if len(text) == 0 {
		return nil, errors.New("the dump is empty")
	}
	if text[len(text)-1] != '\n' {
		return nil, errors.New("the last line of the dump has no end: the dump was cut off")
	}
	d := &Dump{}
	seen := map[string]bool{}
	n, total := 0, -1
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSuffix(line, []byte("\n"))
		if total >= 0 {
			return nil, fmt.Errorf("line %d comes after the line that counts the keys: give one dump", n)
		}
		if count, ok := bytes.CutPrefix(line, []byte("Keys in range: ")); ok {
			var err error
			if total, err = strconv.Atoi(string(count)); err != nil || total != n-1 {
				return nil, fmt.Errorf("line %d counts other than the %d keys above it: the dump is not whole", n, n-1)
			}
			continue
		}
		key, value, err := split(line)
		if err != nil {
			return nil, fmt.Errorf("line %d %w", n, err)
		}
		if seen[key] {
			return nil, fmt.Errorf("line %d has a key that was there before: give one dump", n)
		}
		seen[key] = true
		d.add(n, key, value)
	}
	return d, nil
}

// split takes a line apart. A key of walletKMS has no blank in it.
func split(line []byte) (key string, value []byte, err error) {
	k, rest, ok := bytes.Cut(line, []byte(" "))
	if ok {
		value, ok = bytes.CutPrefix(rest, []byte("==> "))
		if !ok {
			value, ok = bytes.CutPrefix(rest, []byte(": "))
		}
	}
	if !ok || len(k) == 0 {
		return "", nil, errors.New(`is not "KEY : VALUE" or "KEY ==> VALUE", as ldb scan and ldb dump write: give their whole output and nothing else`)
	}
	if k, err = unhex(k); err == nil {
		value, err = unhex(value)
	}
	return string(k), value, err
}

// unhex decodes what begins with 0x, which neither a key of walletKMS nor JSON
// does, and returns anything else as it is.
func unhex(b []byte) ([]byte, error) {
	digits, ok := bytes.CutPrefix(b, []byte("0x"))
	if !ok {
		return b, nil
	}
	out := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(out, digits); err != nil {
		return nil, errors.New("is not hexadecimal all through: the dump was damaged")
	}
	return out, nil
}

// add puts an entry where it belongs.
func (d *Dump) add(line int, key string, value []byte) {
	e := Entry{Line: line}
	parts := strings.Split(key, ":")
	switch {
	case key == "INIT:ADMIN":
		d.Admins = append(d.Admins, readAdmin(e, value))
	case len(parts) == 3 && parts[0] == "DB" && parts[1] == "COMPANY" && isID("C", parts[2]):
		e.ID = parts[2]
		d.Companies = append(d.Companies, readCompany(e, value))
	case len(parts) == 3 && parts[0] == "ADDR" && isID("C", parts[1]) && isID("A", parts[2]):
		e.ID = parts[2]
		d.Wallets = append(d.Wallets, readWallet(e, parts[1], value))
	case len(parts) == 3 && parts[0] == "DB" && parts[1] == "KEY" && isID("K", parts[2]):
		e.ID = parts[2]
		d.DataKeys = append(d.DataKeys, readDataKey(e, value))
	default:
		e.ID, e.Err = key, errors.New("is no key of walletKMS")
		if !showable.MatchString(key) {
			e.ID = ""
		}
		d.Others = append(d.Others, e)
	}
}

func isID(kind, id string) bool { return idForm.MatchString(id) && id[:1] == kind }

// object is a value under way: the fields that were not taken yet.
type object map[string]jsontext.Value

// read takes a value apart. The library's errors may quote the value, so they are
// left out here and below.
func (e *Entry) read(value []byte) object {
	var o object
	if err := json.Unmarshal(value, &o); err != nil || o == nil {
		e.Err = errors.New("is not an object of JSON")
	}
	return o
}

// take takes a field that must be there and be of type T.
func take[T any](e *Entry, o object, name string) (v T) {
	raw, ok := o[name]
	delete(o, name)
	switch {
	case e.Err != nil:
	case !ok:
		e.Err = fmt.Errorf("has no field %s", name)
	case raw.Kind() == 'n' || json.Unmarshal(raw, &v) != nil:
		e.Err = fmt.Errorf("has a field %s of another type than walletKMS writes", name)
	}
	return v
}

// rest notes the fields that were not taken.
func (e *Entry) rest(o object) {
	for name := range o {
		if !showable.MatchString(name) {
			name = "(a name that cannot be shown)"
		}
		e.Unknown = append(e.Unknown, name)
	}
	slices.Sort(e.Unknown)
}

func readAdmin(e Entry, value []byte) Admin {
	o := e.read(value)
	a := Admin{IPs: len(take[[]string](&e, o, "ip")), PublicPEM: take[string](&e, o, "public_key")}
	e.rest(o)
	a.Entry = e
	return a
}

func readCompany(e Entry, value []byte) Company {
	o := e.read(value)
	c := Company{
		IPs:       len(take[[]string](&e, o, "ip")),
		Name:      take[string](&e, o, "name"),
		PublicPEM: take[string](&e, o, "public_key"),
		Status:    take[int](&e, o, "status"),
	}
	e.rest(o)
	c.Entry = e
	return c
}

func readWallet(e Entry, company string, value []byte) Wallet {
	o := e.read(value)
	w := Wallet{
		Company:    company,
		PrivatePEM: take[string](&e, o, "private_key"),
		Address:    take[string](&e, o, "address"),
	}
	if string(o["id"]) == `""` {
		delete(o, "id")
	}
	e.rest(o)
	w.Entry = e
	return w
}

func readDataKey(e Entry, value []byte) DataKey {
	o := e.read(value)
	k := DataKey{
		Company:      take[string](&e, o, "company"),
		Status:       take[int](&e, o, "status"),
		PublicPEM:    take[string](&e, o, "public_key"),
		EncryptedPEM: take[string](&e, o, "private_key"),
	}
	if _, ok := o["name"]; ok {
		k.Name = take[string](&e, o, "name")
	}
	if e.Err == nil && !isID("C", k.Company) {
		e.Err = errors.New("has a company that is no id")
	}
	e.rest(o)
	k.Entry = e
	return k
}

// The new names follow from the old ids alone, so that doing an import again finds
// what the first one made. They are the first 30 hexadecimal digits (120 bits) of a
// SHA-256: an id of walletKMS has more letters, and in two cases, than a name here
// may have, so that no mapping keeps it as it is, and no two ids that anybody will
// ever see have the same digest.

// CompanyName is the name of the company here: c- and 30 digits.
func CompanyName(id string) string { return "c-" + digits("company", id) }

// WalletID is the id of the wallet here: W_ and 30 digits.
func WalletID(company, id string) string { return "W_" + digits("wallet", company, id) }

// DataKeyID is the id of the data key here: K_ and 30 digits.
func DataKeyID(company, id string) string { return "K_" + digits("data key", company, id) }

func digits(parts ...string) string {
	sum := sha256.Sum256([]byte("walletKMS\x00" + strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])[:30]
}
