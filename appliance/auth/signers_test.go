package auth_test

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"signdrop/appliance/auth"
	"signdrop/appliance/reason"

	"golang.org/x/crypto/ssh"
)

// One fault each. The whole file is refused, and the error names the line.
func TestParseSignersFaults(t *testing.T) {
	key := publicLine(t, "ed25519")
	base64Key := strings.Fields(key)[1]
	ecdsaKey := strings.Fields(publicLine(t, "ecdsa-256"))
	huge := ssh.Marshal(struct {
		Type string
		E, N *big.Int
	}{"ssh-rsa", big.NewInt(65537), new(big.Int).SetBit(big.NewInt(1), 8192, 1)})
	const dss = "ssh-dss AAAAB3NzaC1kc3MAAACBAP"
	tests := []struct{ name, line, want string }{
		{"cert-authority", "alice cert-authority " + key, "option cert-authority is not supported"},
		{"cert-authority among others", `alice namespaces="*",Cert-Authority ` + key, "option cert-authority is not supported"},
		{"unknown option", "alice restrict " + key, `unknown option "restrict"`},
		{"option of sshd", "alice no-touch-required " + key, `unknown option "no-touch-required"`},
		{"misspelt option", `alice namespace="request@signdrop" ` + key, `unknown option "namespace"`},
		{"garbage option", `alice %%% ` + key, `unknown option "%%%"`},
		{"option twice", `alice namespaces="a",namespaces="b" ` + key, `option "namespaces" twice`},
		{"comma at the end", `alice namespaces="a", ` + key, `unknown option ""`},
		{"comma at the beginning", `alice ,namespaces="a" ` + key, `unknown option ""`},
		{"no comma between options", `alice namespaces="a"valid-after="20260101" ` + key, "a space and the key must follow"},
		{"space after a comma", `alice namespaces="a", valid-after="20260101" ` + key, `unknown option ""`},
		{"value without quotes", "alice namespaces=request@signdrop " + key, "must be in double quotes"},
		{"quote not closed", `alice namespaces="request@signdrop ` + key, "the quote is not closed"},
		{"backslash", `alice namespaces="a\"b" ` + key, "backslash"},
		{"option without value", "alice namespaces " + key, "namespaces is empty"},
		{"namespaces empty", `alice namespaces="" ` + key, "namespaces is empty"},
		{"time empty", `alice valid-after="" ` + key, "option valid-after: want a time"},
		{"time without value", "alice valid-before " + key, "option valid-before: want a time"},
		{"time too short", `alice valid-after="2026010" ` + key, "want a time"},
		{"time with hours only", `alice valid-after="2026010112" ` + key, "want a time"},
		{"time with a zone", `alice valid-after="202601011200+0100" ` + key, "want a time"},
		{"time with z", `alice valid-after="20260101z" ` + key, "want a time"},
		{"time with ZZ", `alice valid-after="20260101ZZ" ` + key, "want a time"},
		{"time with a letter", `alice valid-after="2026O101" ` + key, "no such time"},
		{"day that is not", `alice valid-after="20260231" ` + key, "no such time"},
		{"hour that is not", `alice valid-after="202601012400" ` + key, "no such time"},
		{"second that is not", `alice valid-after="20260101120060" ` + key, "no such time"},
		{"time before 1970", `alice valid-after="19691231" ` + key, "no such time"},
		{"time 0", `alice valid-before="19700101Z" ` + key, "no such time"},
		{"never valid", `alice valid-after="20260102",valid-before="20260101" ` + key, "valid-before is not after valid-after"},
		{"valid for no time", `alice valid-after="20260101",valid-before="20260101" ` + key, "valid-before is not after valid-after"},
		{"unknown key type", "alice " + dss, `key type "ssh-dss" is not accepted`},
		{"unknown key type after options", `alice namespaces="a" ` + dss, `key type "ssh-dss" is not accepted`},
		{"certificate", "alice ssh-ed25519-cert-v01@openssh.com " + base64Key, "certificates are not accepted"},
		{"small rsa", "alice " + publicLine(t, "rsa-1024"), "an RSA key of 1024 bits is not accepted"},
		{"large rsa", "alice ssh-rsa " + base64.StdEncoding.EncodeToString(huge), "an RSA key of 8193 bits is not accepted"},
		{"type of another key", "alice ecdsa-sha2-nistp256 " + base64Key, "the line says ecdsa-sha2-nistp256, its key is ssh-ed25519"},
		{"key cut", "alice ssh-ed25519 " + base64Key[:40], "reading the key"},
		{"key cut off a letter", "alice ssh-ed25519 " + base64Key[:len(base64Key)-1], "the key is not whole base64"},
		{"key with an unused bit set", "alice " + ecdsaKey[0] + " " + loosen(t, ecdsaKey[1]), "the key is not whole base64"},
		{"key with more", "alice ssh-ed25519 " + base64Key + "AAAA", "reading the key"},
		{"key missing", "alice ssh-ed25519", `unknown option "ssh-ed25519"`},
		{"key missing after options", `alice namespaces="a"`, "a space and the key must follow"},
		{"all missing but the name", "alice", "the key is missing"},
		{"name missing", key + " alice", "the principal is missing"},
		{"name missing before options", `namespaces="a" ` + key, "quote, comma or backslash"},
		{"name quoted without end", `"alice ` + key, "quote is not closed"},
		{"name quoted without space", `"alice"` + key, "quote is not closed"},
		{"name empty", `"" ` + key, "a principal is empty"},
		{"name empty in a list", "alice,,bob " + key, "a principal is empty"},
		{"name empty at the end", "alice, " + key, "a principal is empty"},
		{"any name", "* " + key, "a principal is a pattern"},
		{"name is a pattern", "*@example.com " + key, "a principal is a pattern"},
		{"name is negated", "alice,!bob " + key, "a principal is a pattern"},
		{"name with a quote", `al"ice ` + key, "quote, comma or backslash"},
		{"name with spaces around", `" alice" ` + key, "begins or ends with a space"},
		{"name not UTF-8", "al\xffice " + key, "cannot be printed"},
		{"name with an invisible letter", "al\u200bice " + key, "cannot be printed"},
		{"name too long", strings.Repeat("a", 256) + " " + key, "at most 255 bytes"},
		{"NUL", "alice\x00 " + key, "control character at byte 6"},
		{"NUL in a comment", "# alice\x00", "control character at byte 8"},
		{"CR as a line end", "# alice\ralice " + key, "control character at byte 8"},
		{"two CR", "alice " + key + "\r\r", "control character"},
		{"line too long", "# " + strings.Repeat("a", 16<<10), "a line has at most 16384 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := "# signers\nbob " + publicLine(t, "ed25519/bob") + "\n" + tt.line + "\n"
			s, err := auth.ParseSigners([]byte(file))
			if s != nil {
				t.Error("got signers with an error")
			}
			if err == nil || !strings.HasPrefix(err.Error(), "line 3: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want line 3: …%s", err, tt.want)
			}
		})
	}
	t.Run("byte order mark", func(t *testing.T) {
		_, err := auth.ParseSigners([]byte("\ufeffalice " + key + "\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "line 1: ") {
			t.Errorf("got %v, want line 1", err)
		}
	})
	t.Run("file too large", func(t *testing.T) {
		_, err := auth.ParseSigners([]byte(strings.Repeat("\n", auth.MaxSigners+1)))
		if err == nil {
			t.Error("got no error")
		}
	})
}

func TestParseSignersForms(t *testing.T) {
	key := publicLine(t, "ed25519")
	sig := parseSignature(t, sshSign(t, "ed25519", auth.NamespaceRequest, message))
	tests := []struct{ name, file, principal string }{
		{"plain", "alice " + key + "\n", "alice"},
		{"no line end", "alice " + key, "alice"},
		{"CRLF", "# signers\r\n\r\nalice " + key + "\r\n", "alice"},
		{"comment after the key", "alice " + key + " alice@laptop, her \"old\" one #1\n", "alice"},
		{"tabs and spaces", " \talice \t ssh-ed25519\t  " + strings.Fields(key)[1] + " \t\n", "alice"},
		{"comments and blank lines", "# a\n\n  # b\n\t\nalice " + key + "\n# c\n", "alice"},
		{"several names", "alice@example.com,alice,al " + key + "\n", "alice@example.com"},
		{"quoted", `"alice" ` + key + "\n", "alice"},
		{"quoted list", `"alice,bob" ` + key + "\n", "alice"},
		{"quoted with a space", `"Alice Example" ` + key + "\n", "Alice Example"},
		{"name not ASCII", "Zoë " + key + "\n", "Zoë"},
		{"option in upper case", `alice NameSpaces="request@signdrop" ` + key + "\n", "alice"},
		{"all options", `alice namespaces="request@signdrop",valid-after="20260101",valid-before="20270101Z" ` + key + "\n", "alice"},
		{"same line twice", "alice " + key + "\nalice " + key + "\n", "alice"},
		{"first of two names", "alice " + key + "\nal " + key + "\n", "alice"},
		{"second line allows", `alice namespaces="admin@signdrop" ` + key + "\nal " + key + "\n", "al"},
		{"third line allows", `alice valid-before="20260101Z" ` + key + "\n" + `al valid-after="20270101Z" ` + key + "\na " + key + "\n", "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := auth.ParseSigners([]byte(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if s.Len() != 1 {
				t.Errorf("got %d keys, want 1", s.Len())
			}
			asker, err := s.Verify(message, sig, auth.NamespaceRequest, noon)
			if err != nil {
				t.Fatal(err)
			}
			if asker.Principal != tt.principal {
				t.Errorf("got principal %q, want %q", asker.Principal, tt.principal)
			}
			// OpenSSH reads the same file the same way.
			if !sshVerify(t, tt.file, tt.principal, auth.NamespaceRequest, noon, message,
				sshSign(t, "ed25519", auth.NamespaceRequest, message)) {
				t.Error("ssh-keygen says no")
			}
		})
	}
	for _, empty := range []string{"", "\n", "# nobody yet\n"} {
		s, err := auth.ParseSigners([]byte(empty))
		if err != nil || s.Len() != 0 {
			t.Errorf("ParseSigners(%q) = %v keys, %v, want none", empty, s, err)
		}
	}
}

// When no line of a key allows a signature, the refusal is the one nearest to
// a yes, in whichever order the lines stand.
func TestVerifyMostHelpfulRefusal(t *testing.T) {
	key := publicLine(t, "ed25519")
	early := `alice valid-after="20270101Z" ` + key
	late := `alice valid-before="20260101Z" ` + key
	role := `alice namespaces="admin@signdrop" ` + key
	sig := parseSignature(t, sshSign(t, "ed25519", auth.NamespaceRequest, message))
	tests := []struct {
		lines []string
		code  reason.Code
		want  string
	}{
		{[]string{early, late, role}, reason.SignerNotValid, "valid only from 2027-01-01T00:00:00Z"},
		{[]string{role, late, early}, reason.SignerNotValid, "valid only from 2027-01-01T00:00:00Z"},
		{[]string{role, late}, reason.SignerNotValid, "valid until 2026-01-01T00:00:00Z"},
		{[]string{role}, reason.SignerUnknown, "listed, but not for request@signdrop"},
	}
	for _, tt := range tests {
		_, err := parseSigners(t, tt.lines...).Verify(message, sig, auth.NamespaceRequest, noon)
		wantCode(t, err, tt.code, false)
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %q, want %q in it", err, tt.want)
		}
	}
}

// The same question to us and to ssh-keygen -Y verify: over lines that both
// understand, the answers agree.
func TestVerifyAgreesWithSSHKeygen(t *testing.T) {
	options := []string{
		"",
		`namespaces="request@signdrop"`,
		`namespaces="admin@signdrop"`,
		`namespaces="approve@signdrop,request@signdrop"`,
		`namespaces="file,git"`,
		`namespaces="*"`,
		`namespaces="*@signdrop"`,
		`namespaces="re?uest@*"`,
		`namespaces="request@signdro?"`,
		`namespaces="request@signdrop?"`,
		`namespaces="REQUEST@signdrop"`,
		`namespaces="*,!request@signdrop"`,
		`namespaces="!admin@signdrop,*"`,
		`namespaces="!admin@signdrop"`,
		`namespaces=" request@signdrop"`,
		`namespaces="request@signdrop,"`,
		`namespaces=","`,
		`namespaces="**@*s*n*p"`,
		`NAMESPACES="request@signdrop"`,
		`valid-after="20260615"`,
		`valid-after="20260615Z"`,
		`valid-after="202606151200"`,
		`valid-after="202606151201Z"`,
		`valid-after="20260615115959Z"`,
		`valid-after="20260615120000Z"`,
		`valid-after="20260615120001Z"`,
		`valid-before="20260615"`,
		`valid-before="20260616Z"`,
		`valid-before="20260615115959"`,
		`valid-before="20260615120000Z"`,
		`valid-before="20260615120001Z"`,
		`valid-after="20260101",valid-before="20270101"`,
		`valid-after="20250101",valid-before="20260101"`,
		`namespaces="request@signdrop",valid-before="20260101"`,
		`namespaces="admin@signdrop",valid-before="20270101"`,
	}
	key := publicLine(t, "ed25519")
	files := map[string][]byte{}
	namespaces := []string{auth.NamespaceRequest, auth.NamespaceAdmin}
	for _, namespace := range namespaces {
		files[namespace] = sshSign(t, "ed25519", namespace, message)
	}
	verdicts := map[bool]int{}
	compare := func(t *testing.T, lines []string, made, asked string, at time.Time) {
		t.Helper()
		_, err := parseSigners(t, lines...).Verify(message, parseSignature(t, files[made]), asked, at)
		want := sshVerify(t, strings.Join(lines, "\n")+"\n", "alice", asked, at, message, files[made])
		verdicts[want]++
		if (err == nil) != want {
			t.Errorf("%q made for %s, asked for %s, at %s: got %v, ssh-keygen says %v", lines, made, asked, at, err, want)
		}
	}
	for _, option := range options {
		for _, made := range namespaces {
			t.Run(option+"/"+made, func(t *testing.T) {
				line := strings.ReplaceAll("alice "+option+" "+key, "  ", " ")
				compare(t, []string{line}, made, auth.NamespaceRequest, noon)
			})
		}
	}
	// Several lines for the key, and a clock between and beyond the limits.
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			lines := []string{"alice " + publicLine(t, "ed25519/bob")}
			for range 1 + random.IntN(3) {
				lines = append(lines, strings.ReplaceAll("alice "+options[random.IntN(len(options))]+" "+key, "  ", " "))
			}
			random.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
			at := noon.Add(time.Duration(random.IntN(5)-2) * time.Second)
			if random.IntN(3) == 0 {
				at = noon.AddDate(random.IntN(5)-2, 0, 0)
			}
			compare(t, lines, namespaces[random.IntN(2)], namespaces[random.IntN(2)], at)
		})
	}
	if verdicts[true] < 20 || verdicts[false] < 20 {
		t.Errorf("ssh-keygen said yes %d times and no %d times: too few of one to compare", verdicts[true], verdicts[false])
	}
}

// Where we say no on purpose and ssh-keygen says yes. If one of these changes
// there, the comment that explains ours is out of date.
func TestStricterThanSSHKeygen(t *testing.T) {
	key := publicLine(t, "ed25519")
	good := sshSign(t, "ed25519", auth.NamespaceRequest, message)
	reserved := newWire(t, sshSigner(t, "ed25519"), ssh.KeyAlgoED25519, nil)
	reserved.Reserved = []byte("signed by nobody")
	tests := []struct {
		name, file string
		sig        []byte
	}{
		{"reserved field filled after signing", "alice " + key + "\n", rearmour(ssh.Marshal(reserved))},
		{"principal is a pattern", "* " + key + "\n", good},
		{"another line is damaged", "bob garbage\nalice " + key + "\n", good},
		{"a day that is not", `alice valid-after="20260231" ` + key + "\n", good},
		{"small rsa", "alice " + publicLine(t, "rsa-1024") + "\n", sshSign(t, "rsa-1024", auth.NamespaceRequest, message)},
		{"something after the armour", "alice " + key + "\n", append(good, "and more\n"...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := auth.ParseSigners([]byte(tt.file))
			if err == nil {
				var sig *auth.Signature
				if sig, err = auth.ParseSignature(tt.sig); err == nil {
					_, err = s.Verify(message, sig, auth.NamespaceRequest, noon)
				}
			}
			if err == nil {
				t.Error("got yes, want no")
			}
			if !sshVerify(t, tt.file, "alice", auth.NamespaceRequest, noon, message, tt.sig) {
				t.Error("ssh-keygen says no too")
			}
		})
	}
}

// One Signers serves many goroutines.
func TestSignersConcurrently(t *testing.T) {
	signers := parseSigners(t, "alice "+publicLine(t, "ed25519"), opensslLine(t, "P-256", "bob"))
	sigs := []*auth.Signature{
		parseSignature(t, sshSign(t, "ed25519", auth.NamespaceRequest, message)),
		parseSignature(t, opensslSign(t, "P-256", "sha384", message)),
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 20 {
				if _, err := signers.Verify(message, sigs[i%2], auth.NamespaceRequest, noon); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
