package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"
	"sync"
	"time"

	"signdrop/appliance/auth"
	"signdrop/appliance/policy"
	"signdrop/appliance/request"
	"signdrop/appliance/setup"
	"signdrop/spool/durable"
)

// Limits of the files that describe a company, in bytes.
const (
	maxCompanyFile = 64 << 10
	maxSignersFile = 1 << 20
)

// company is what db/companies/<name> says of a partner, or db/admins of the
// administrators: immutable, replaced as a whole when a file changes.
type company struct {
	name      string
	title     string
	created   string // request_sha256 of the command that made it
	active    bool
	signers   *auth.Signers
	policy    *policy.Policy
	threshold int // of the administrators; 0 for a company
	stamp     stamp
}

// role says what those who sign for it may ask for.
func (c *company) role() request.Role {
	if c.threshold > 0 {
		return request.Administrator
	}
	return request.Partner
}

// stamp tells whether one of a company's files has changed.
type stamp [3]durable.Info

// companies reads db/companies, again when it changes. It is safe for concurrent
// use.
type companies struct {
	root  durable.Dir // the data directory; not ours to close
	dir   durable.Dir // db/companies
	every time.Duration
	now   func() time.Time

	mu     sync.Mutex
	known  map[string]*company
	looked map[string]time.Time
}

// recheck is how old what we know of a company may be: how long a signer that is
// removed by hand may still sign.
const recheck = time.Second

func openCompanies(root, db durable.Dir, now func() time.Time) (*companies, error) {
	dir, err := db.Sub("companies")
	if err != nil {
		return nil, fmt.Errorf("opening db/companies: %w (run signdrop init first)", err)
	}
	return &companies{
		root: root, dir: dir, every: recheck, now: now,
		known: map[string]*company{}, looked: map[string]time.Time{},
	}, nil
}

// names lists the companies, the administrators among them.
func (cs *companies) names() ([]string, error) {
	names := []string{setup.Administrators}
	err := durable.Walk(cs.dir, func(e durable.Entry) error {
		if e.Type.IsDir() && e.Name[0] != '.' {
			names = append(names, e.Name)
		}
		return nil
	})
	sort.Strings(names)
	return names, err
}

// get returns what is known of a company.
func (cs *companies) get(name string) (*company, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	now := cs.now()
	c := cs.known[name]
	if since := now.Sub(cs.looked[name]); c != nil && since >= 0 && since < cs.every {
		return c, nil
	}
	home, files, read := []string{"db", "companies", name}, []string{"company.json", "allowed_signers", "policy.json"}, readCompany
	if name == setup.Administrators {
		home, files, read = []string{"db", "admins"}, []string{"allowed_signers", "threshold"}, cs.readAdmins
	}
	d, err := durable.SubPath(cs.root, home...)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", strings.Join(home, "/"), err)
	}
	defer d.Close()
	var st stamp
	for i, file := range files {
		st[i], err = d.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // read says whether it is needed
		}
		if err != nil {
			return nil, fmt.Errorf("looking at %s: %w", strings.Join(home, "/"), err)
		}
	}
	if c == nil || c.stamp != st {
		if c, err = read(d, name); err != nil {
			return nil, fmt.Errorf("reading %s: %w", strings.Join(home, "/"), err)
		}
		c.stamp = st
		cs.known[name] = c
	}
	cs.looked[name] = now
	return c, nil
}

// forget makes the next get look again, after a command has changed something.
func (cs *companies) forget(name string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.looked, name)
}

func (cs *companies) readAdmins(d durable.Dir, name string) (*company, error) {
	c := &company{name: name, active: true, policy: &policy.Policy{}}
	data, err := durable.ReadFile(d, "allowed_signers", maxSignersFile)
	if err != nil {
		return nil, err
	}
	if c.signers, err = auth.ParseSigners(data); err != nil {
		return nil, fmt.Errorf("allowed_signers: %w", err)
	}
	c.threshold, err = setup.ReadThreshold(cs.root)
	return c, err
}

func readCompany(d durable.Dir, name string) (*company, error) {
	c := &company{name: name, policy: &policy.Policy{}}
	f, err := setup.ReadCompany(d)
	if err != nil {
		return nil, err
	}
	c.title, c.created, c.active = f.Title, f.Created, f.Status == setup.Active
	data, err := durable.ReadFile(d, "allowed_signers", maxSignersFile)
	if err != nil {
		return nil, err
	}
	if c.signers, err = auth.ParseSigners(data); err != nil {
		return nil, fmt.Errorf("allowed_signers: %w", err)
	}
	data, err = durable.ReadFile(d, "policy.json", maxCompanyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	c.policy, err = policy.Parse(data)
	return c, err
}
