package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/auth"
	"signdrop/appliance/policy"
	"signdrop/spool/durable"
)

// Limits of the files that describe a company, in bytes.
const (
	maxCompanyFile = 64 << 10
	maxSignersFile = 1 << 20
)

// company is what db/companies/<name> says of a partner: immutable, replaced as a
// whole when a file changes.
type company struct {
	name    string
	active  bool
	signers *auth.Signers
	policy  *policy.Policy
	stamp   stamp
}

// stamp tells whether one of a company's files has changed.
type stamp [3]durable.Info

// companyFile is company.json.
type companyFile struct {
	Name   string `json:"name"`
	Status string `json:"status"` // "active" or "disabled"
}

// companies reads db/companies, again when it changes. It is safe for concurrent
// use.
type companies struct {
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

func openCompanies(db durable.Dir, now func() time.Time) (*companies, error) {
	dir, err := db.Sub("companies")
	if err != nil {
		return nil, fmt.Errorf("opening db/companies: %w (run signdrop init first)", err)
	}
	return &companies{
		dir: dir, every: recheck, now: now,
		known: map[string]*company{}, looked: map[string]time.Time{},
	}, nil
}

// names lists the companies.
func (cs *companies) names() ([]string, error) {
	var names []string
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
	d, err := cs.dir.Sub(name)
	if err != nil {
		return nil, fmt.Errorf("opening db/companies/%s: %w", name, err)
	}
	defer d.Close()
	var st stamp
	for i, file := range []string{"company.json", "allowed_signers", "policy.json"} {
		st[i], err = d.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // read says whether it is needed
		}
		if err != nil {
			return nil, fmt.Errorf("looking at db/companies/%s: %w", name, err)
		}
	}
	if c == nil || c.stamp != st {
		if c, err = readCompany(d, name); err != nil {
			return nil, fmt.Errorf("reading db/companies/%s: %w", name, err)
		}
		c.stamp = st
		cs.known[name] = c
	}
	cs.looked[name] = now
	return c, nil
}

func readCompany(d durable.Dir, name string) (*company, error) {
	c := &company{name: name, policy: &policy.Policy{}}
	data, err := durable.ReadFile(d, "company.json", maxCompanyFile)
	if err != nil {
		return nil, err
	}
	var f companyFile
	if err := json.Unmarshal(data, &f, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("company.json: %w", err)
	}
	switch f.Status {
	case "active":
		c.active = true
	case "disabled":
	default:
		return nil, fmt.Errorf("company.json: status is %q: use active or disabled", f.Status)
	}
	if data, err = durable.ReadFile(d, "allowed_signers", maxSignersFile); err != nil {
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
