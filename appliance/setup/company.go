package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/auth"
	"signdrop/spool/durable"
)

// Files of a company in db/.
const (
	companyFile = "company.json"
	keysFile    = "authorized_keys"
	policyFile  = "policy.json"
)

// The statuses of a company.
const (
	Active   = "active"
	Disabled = "disabled"
)

// Company is company.json.
type Company struct {
	Name    string `json:"name"`
	Title   string `json:"title,omitempty"`   // its name for people
	Status  string `json:"status"`            // Active or Disabled
	Created string `json:"created,omitempty"` // the request_sha256 of the command that made it
}

func (c *Company) encode() []byte {
	data, err := json.Marshal(c)
	if err != nil {
		panic("internal error: company.json cannot be written: " + err.Error())
	}
	return readable(data)
}

// maxCompany is more than any company.json has, in bytes.
const maxCompany = 64 << 10

// ReadCompany reads company.json in a company's directory below db/companies.
func ReadCompany(d durable.Dir) (*Company, error) {
	data, err := durable.ReadFile(d, companyFile, maxCompany)
	if err != nil {
		return nil, err
	}
	c := &Company{}
	if err := json.Unmarshal(data, c, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("company.json: %w", err)
	}
	if c.Status != Active && c.Status != Disabled {
		return nil, fmt.Errorf("company.json: status is %q: use active or disabled", c.Status)
	}
	return c, nil
}

// Change is what is to be different of a company that is there. What is nil stays.
type Change struct {
	Title          *string
	Status         *string
	Signers        []Signer // in place of all
	AuthorizedKeys *[]byte
	Policy         []byte
}

// Update changes a company. Doing it again is safe. What it reports as done is
// durable.
//
// Crash: each file is the old or the new one, whole; doing it again changes the
// rest.
func Update(root durable.Dir, access Access, company string, change Change) error {
	d, err := durable.SubPath(root, "db", "companies", company)
	if err != nil {
		return err
	}
	defer d.Close()
	r := replacer{d, access, path.Join("db/companies", company)}
	if change.Signers != nil {
		text, err := signersText(change.Signers, namespacesCompany)
		if err != nil {
			return err
		}
		if err := r.put(signersFile, text); err != nil {
			return err
		}
	}
	if change.AuthorizedKeys != nil {
		if err := r.put(keysFile, *change.AuthorizedKeys); err != nil {
			return err
		}
	}
	if change.Policy != nil {
		if err := r.put(policyFile, readable(bytes.Clone(change.Policy))); err != nil {
			return err
		}
	}
	if change.Title == nil && change.Status == nil {
		return nil
	}
	c, err := ReadCompany(d)
	if err != nil {
		return err
	}
	if change.Title != nil {
		c.Title = *change.Title
	}
	if change.Status != nil {
		c.Status = *change.Status
	}
	return r.put(companyFile, c.encode())
}

// SetAdmins puts other administrators in the place of all. Doing it again is safe.
//
// Crash: the keys may be the old or the new ones, with the higher of the two
// thresholds; doing it again makes them fit.
func SetAdmins(root durable.Dir, access Access, admins []Signer, threshold int) error {
	d, err := durable.SubPath(root, "db", "admins")
	if err != nil {
		return err
	}
	defer d.Close()
	text, err := signersText(admins, namespacesAdmin)
	if err != nil {
		return err
	}
	if err := distinct(admins); err != nil {
		return err
	}
	old, err := ReadThreshold(root)
	if err != nil {
		return err
	}
	r := replacer{d, access, "db/admins"}
	count := fmt.Appendf(nil, "%d\n", threshold)
	// Never the new keys with a lower threshold than theirs, nor the old ones with a
	// lower one than they had.
	if threshold > old {
		if err := r.put(thresholdFile, count); err != nil {
			return err
		}
	}
	if err := r.put(signersFile, text); err != nil {
		return err
	}
	if err := r.put(thresholdFile, count); err != nil {
		return err
	}
	keys, err := loginKeys(admins)
	if err != nil {
		return err
	}
	return r.put(keysFile, keys)
}

// loginKeys lets administrators come in by SFTP with the keys that they sign with:
// where there is no other way to the inbox, their first command has to get there.
func loginKeys(admins []Signer) ([]byte, error) {
	var b []byte
	for _, s := range admins {
		line, err := auth.Line(s.Key, "")
		if err != nil {
			return nil, err
		}
		b = fmt.Appendf(b, "%s %s\n", line, s.Name)
	}
	return b, nil
}

// distinct refuses administrators of the same name: they count as one person.
func distinct(admins []Signer) error {
	seen := map[string]string{}
	for _, s := range admins {
		key := string(s.Key.Marshal())
		if old, ok := seen[s.Name]; ok && old != key {
			return fmt.Errorf("two administrators are called %s, and would count as one: give their keys other comments", s.Name)
		}
		seen[s.Name] = key
	}
	return nil
}

func signersText(signers []Signer, namespaces string) ([]byte, error) {
	var l list
	l.namespaces = namespaces
	if err := l.parse(); err != nil {
		return nil, err
	}
	if err := l.add(signers); err != nil {
		return nil, err
	}
	return l.text, nil
}

// replacer puts files in the place of old ones in a directory.
type replacer struct {
	d      durable.Dir
	access Access
	path   string
}

// put gives a file new content, durably. Owner, group and mode stay.
func (r *replacer) put(name string, data []byte) error {
	old, err := durable.ReadFile(r.d, name, 1<<20)
	if err == nil && bytes.Equal(old, data) {
		// It may be visible and not durable yet, from before a crash.
		return r.d.Sync()
	}
	perm, uid, gid := fs.FileMode(0o600), -1, -1
	info, err := r.d.Stat(name)
	if err == nil {
		perm, uid, gid = info.Mode.Perm(), int(info.UID), int(info.GID)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := "." + name + ".new"
	if err := r.d.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.WriteSynced(r.d, tmp, perm, data); err != nil {
		return err
	}
	if r.access != nil {
		if err := r.access(path.Join(r.path, tmp), uid, gid, perm); err != nil {
			return err
		}
	}
	if err := r.d.Replace(tmp, name); err != nil {
		return err
	}
	return r.d.Sync()
}

// readable writes JSON for people, who will read it.
func readable(data []byte) []byte {
	v := jsontext.Value(data)
	if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
		panic("internal error: our own JSON cannot be read: " + err.Error())
	}
	return append(v, '\n')
}
