package main

import (
	"net"
	"path"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]address{
		"sftp://acme@host":             {"acme", "host:10210", ""},
		"sftp://acme@host/":            {"acme", "host:10210", ""},
		"sftp://acme@host:22":          {"acme", "host:22", ""},
		"sftp://acme@[::1]:22/srv//a/": {"acme", "[::1]:22", "/srv/a"},
		"sftp://acme@[fe80::1%25eth0]": {"acme", "[fe80::1%eth0]:10210", ""},
		"sftp://acme@host/../../etc":   {"acme", "host:10210", "/etc"},
	} {
		if got, err := parseAddress(in); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"sftp:", "sftp://", "sftp:///x", "sftp://host", "sftp://@host", "sftp:acme@host", "sftp://acme@host:x", "http://acme@host",
		"sftp://acme:secret@host", "sftp://acme:secret@host:x", "sftp://acme:@host", "sftp://acme@host?secret", "sftp://acme@host#secret",
		"sftp://ac%0ame@host", "sftp://acme@host/a%00b",
	} {
		got, err := parseAddress(in)
		if err == nil || got != (address{}) {
			t.Errorf("%s is accepted as %+v", in, got)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats it: %v", in, err)
		}
	}
}

// FuzzAddress: what is accepted has all parts, and no control character that a
// terminal or a server might be led by.
func FuzzAddress(f *testing.F) {
	f.Add("sftp://acme@host:22/a/b")
	f.Add("sftp://a:b@[::1]/?")
	f.Fuzz(func(t *testing.T, in string) {
		a, err := parseAddress(in)
		if err != nil {
			if a != (address{}) {
				t.Errorf("an error, and %+v", a)
			}
			return
		}
		host, port, err := net.SplitHostPort(a.host)
		if err != nil || host == "" || port == "" || a.user == "" || a.dir != "" && (a.dir != path.Clean(a.dir) || a.dir[0] != '/') {
			t.Errorf("%q is %+v, %v", in, a, err)
		}
		if strings.ContainsAny(a.user+a.host+a.dir, "\x00\n\r\x1b") {
			t.Errorf("%q keeps control characters: %+v", in, a)
		}
	})
}
